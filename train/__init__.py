"""The trainer: `fastload train`; in a checkout `python train/run.py` is the same.

    run           the page: epochs, one epoch, one step
    command       command line -> options; recipe reads and writes them as TOML
    assembly      options -> Run: ranks, data, network (model, weights), losses, optimiser, schedule
    position      where the run stands; meter adds up an epoch, readings and clock feed it
    diagnosis     what is wrong before the first step; checks has each single check
    evaluation    the model on a split -> Scores -> Verdict; metrics has the figures
    checkpoint    last.pt and best.pt; tensorfile writes them whole
    record        the folder of a run: log, trackers, classes.csv, result.json; trace of a profile
    export        a door: a trained model as a file; exported writes it, answering is the program in
                  it, agreement asks both about photographs
    outcome       the best epoch on val and test -> report, with charts and confusion
    audit         the best epoch on train: which labels may be wrong?
    page          HTML of report and answers; pictures: thumbnails, links; class_sizes: a table
    console       what is printed; interrupt: Ctrl-C and SIGTERM

After training, `fastload predict` says what a run's model sees in photographs:

    predict       the command: RUN, PHOTOS, --out
    trained       best.pt -> Trained, whose temperature calibration finds; page holds parts of HTML
    photographs   files, folders, shards, tars, tables -> Photograph; views renders them in batches
    asking        the model on each batch -> Answers, which answers writes as CSV, JSON lines, HTML

The tests of a module are in tests/train/.
"""
