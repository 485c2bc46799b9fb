"""Videos and clips of them: files, folders of class folders, lists and shards."""
