"""A folder of images to shards: clean, transcode, write."""
