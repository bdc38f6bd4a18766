"""What is on disk, and how the bytes of a sample are read from it.

    tar         the bytes of a tar: headers, padding, offsets, keys; the writer
    facts       JSON that anybody may have written, read within bounds
    manifest    a shard directory: its classes, splits and shards
    index       one SAMPLE for each image of a split
    collection  the indexes of several shard directories, put end to end
    reader      rows of an index -> the bytes of their JPEGs
    faults      whether manifest, indexes and tars agree

The loader knows this wing by the collection and the reader alone. A shard directory is one kind of
store: another kind (data in place, an object store) brings an index of its own, and a class of its
own that is a `reader.Reader`.
"""
