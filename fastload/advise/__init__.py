"""What this machine can do, what a shard directory holds, which parameters to take.

examples, backends, versions   which back-ends work here (`fastload.doctor`)
contents, sheet                a shard directory in text and in pictures (`fastload.inspect`)
trials, advice, recipe         trials of loader and training step, what to take by them, and the
                               file for the trainer (`fastload.tune`)
cards, expectation, forecast   GPUs and published rates, what to expect of one that is not here, and
                               how that is said (`fastload.tune --gpu`)
"""
