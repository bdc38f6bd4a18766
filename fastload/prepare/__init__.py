"""Images to shards, or to an index in place: find, clean, transcode, write.

given source found reading    what was given; what images there are; their bytes
tree naming spelling layout   what lies in a folder; what names tell; which folder is what
folders                       class folders
tar_members tar_streams       tars: their members, on a disk or in an object store
tar_folders tars              class folders in tars, samples of webdataset
tables catalogues listed      tables of labels, and catalogues in COCO's form
parquet                       as Hugging Face writes it
labels class_names            from what a source says of a class to numbers and readable names
formats reasons verdict       what a file is; why it is set aside; what became of it
bare transcode original       one file to the JPEG that is stored, or as it is
examine duplicates            all files, in processes (workers); the same image in several places
report remedies               cleaning.csv, quarantine, the options that would keep more
thumbnails                    small pictures of what was set aside
plan                          which file goes into which shard
write finish                  phase 1, with a journal for each shard; phase 2, with foreign_index
target staging bucket         where shards go: a folder, or an object store by way of a folder
cluster spread                the same on other machines: join Ray; what its nodes do
folder                        the whole
in_place examined indexing    the same for images that stay where they lie; what is known of them
publish                       the index of data in an object store, put beside them
flowers sample_folder         pictures to try everything with
"""
