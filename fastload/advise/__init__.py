"""What this machine can do, what the data hold, which parameters to take.

examples, backends, versions   which back-ends work here (`fastload.doctor`)
contents, survey, sheet        what the data hold: in text, as a page, samples of an epoch
by_class, aside, diagrams      parts of that page: samples, what was set aside, tail and sizes
                               (`fastload.inspect`)
trials, advice, recipe         trials of loader and training step, what to take by them, and the
                               file for the trainer (`fastload.tune`)
cards, expectation, forecast   GPUs and published rates, what to expect of one that is not here, and
                               how that is said (`fastload.tune --gpu`)
"""
