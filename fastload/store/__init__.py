"""What is on disk, and how the bytes of a sample are read from it.

    tar         the bytes of a tar: headers, padding, offsets, keys; the writer
    facts rows  JSON and NumPy files that anybody may have written, read within bounds
    manifest    a shard directory: its classes, splits and shards
    index       one SAMPLE for each image of a split, in shards
    places      the index of data in place: one PLACE for each image of a split
    freshness   whether data in place are those that were indexed
    mapped      an index that is too large for memory: its rows where they lie
    holders     the files that hold the bytes: shards, or files in place
    collection  the indexes of several directories, put end to end
    ranges      byte ranges of open files, read into memory
    seek_tables  those of images in place, read beside them
    reader      rows of an index -> the bytes of their images
    remote      addresses of object stores; what their errors mean
    objects     what is asked of a store, again and again until a limit
    requests    ranges of objects, many in flight
    remote_shards  manifest and index that lie in a store
    remote_index  the index in place of data that lie in a store, and a copy of it here
    remote_places  photographs and foreign tars in a store
    cache       what was fetched once, on a local disk
    remote_reader  rows of an index -> the bytes of their images, from a store
    streaming   objects of a store, forward
    copying     shards of a store to a folder
    plain_copy  other files of a store to a folder
    object_files  an object as a file of Python
    object_paths  places below an address, read as files are
    uploads     objects of a store, to write
    faults      whether manifest, indexes and tars agree
    remote_faults  the same in a store
    misplaced   what a path leads to that leads to no data
    summary     what data hold, as a notebook shows it

The loader knows this wing by the collection and the reader alone. Whatever the data are, an image
is a range of bytes in a file. Another kind of store brings an index and `holders.Holders` of its
own, or a class of its own that is a `reader.Reader`.
"""
