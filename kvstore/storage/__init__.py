"""Files: the write-ahead log, snapshot files and the ordered store."""
