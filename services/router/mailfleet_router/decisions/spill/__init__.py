"""Units that wait and for which memory is too dear: they lie in a local store, which is only a cache of the log."""
