"""A folder of images to shards: clean, transcode, write.

tree naming spelling layout   what lies in a folder; what names tell; which folder is what
source class_names reading    the files of a folder, their splits and classes; their bytes
formats reasons verdict       what a file is; why it is set aside; what became of it
bare transcode original       one file to the JPEG that is stored, or as it is
examine duplicates            all files, in processes (workers); the same image in several places
report remedies               cleaning.csv, quarantine, the options that would keep more
plan                          which file goes into which shard
write finish                  phase 1, with a journal for each shard; phase 2, with foreign_index
folder                        the whole
flowers sample_folder         pictures to try everything with
"""
