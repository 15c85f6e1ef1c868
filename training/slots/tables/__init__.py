"""Where the rows of a run's puzzle tables lie: in memory of the device or the host, on a disk, over the ranks."""
