"""The loader, along the way of a batch.

policy        the options of a Loader, resolved and checked
selection     which samples of a split take part
reweighting   how often each class, or each sample, comes
draws         which sample each draw of an epoch is
shuffle       a permutation, computed place by place
order         which sample stands at each position of an epoch
sampling      what a user asks for -> the order
ranks         global batches, and the part of each rank
powers        exp, log and powers, the same on every processor
auto_augment  TrivialAugment and RandAugment: operations and strengths
augment, box  what is drawn for each position: boxes, flips, colours
plan          the samples, boxes and flips of one batch of one rank
buffers       memory for batches
rendering     bytes -> pixels -> batches, ahead of the caller
threads       the threads that do it
replacement   the neighbour that takes the place of a bad sample
bad_samples   bad samples are logged and limited
device        batches -> the device
operations    what TrivialAugment and RandAugment do, on the device
per_image     a transform of the caller's own, on each image
apply         colours, normalisation, erasing and mixing, on the device
backend       which back-end renders
stats         where the time goes
drawing       a batch with names, to look at
loader        Loader: all of this; iterate, save, resume
dataset       TarDataset: the same samples by index, for torch's DataLoader
"""
