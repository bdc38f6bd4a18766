"""Options from defaults, recipes and the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from train.command import latest_run, parse
from train.options import LossOptions, Options, RunOptions, ScheduleOptions, fields, tables
from train.recipe import RECIPES, OptionsError, read_recipe, to_toml


def test_defaults_need_no_arguments():
    command = parse([])

    assert command.options == Options()
    assert not command.resume
    assert not command.check


def test_the_command_line_overrides_the_recipe_and_the_recipe_the_defaults(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[data]\nbatch_size = 7\n[schedule]\nepochs = 3\nstep_epochs = [1, 2]\n")

    options = parse(["--recipe", str(recipe), "--epochs", "9", "--no-report"]).options

    assert options.data.batch_size == 7
    assert options.schedule.epochs == 9
    assert options.schedule.step_epochs == (1, 2)
    assert options.optimisation.momentum == 0.9
    assert not options.record.report


def test_options_survive_toml(tmp_path):
    options = Options(
        run=RunOptions(name='q"uo te 中文 \x7f\t', seed=2**62),
        schedule=ScheduleOptions(step_epochs=(), warmup_epochs=1e-05),
        loss=LossOptions(class_weights="effective:0.999"),
    )
    recipe = tmp_path / "options.toml"
    recipe.write_text(to_toml(options), encoding="utf-8")

    assert parse(["--recipe", str(recipe)]).options == options


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_found_by_its_name(path):
    assert parse(["--recipe", path.stem]).options == parse(["--recipe", str(path)]).options


def test_there_are_recipes_for_the_uses_we_name():
    assert {"plantnet300k-rtx3060-5h", "quick-cpu", "imagenet"} <= {
        path.stem for path in RECIPES.glob("*.toml")
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[data]\nbatchsize = 1",
            "batchsize in .data. of r.toml is no option; did you mean batch_size",
        ),
        ("[dta]\n", r"\[dta\] in r.toml is no table of options; known: data, "),
        ("epochs = 3", r"\[epochs\] in r.toml is no table"),
        ("[data]\nbatch_size = '3'", "batch_size must be of type int, got '3'"),
        ('[model]\ninit = "a\\u0000"', "init must be without a NUL character"),
        (f"[optimisation]\nlr = {'9' * 400}", "lr must be a finite number, got inf"),
        ("[schedule]\nstep_epochs = [-3]", "step_epochs must be at least 0, got -3"),
        ("[data]\nbatch_size = true", "batch_size must be of type int, got True"),
        ("[schedule]\nstep_epochs = 3", "step_epochs must be a list of whole numbers, got 3"),
        ("[run]\namp = 'fp8'", 'amp must be one of auto, bf16, fp16, off, got "fp8"'),
        ("[data\n", "not a TOML file"),
    ],
)
def test_a_recipe_with_a_mistake_is_one_sentence(tmp_path, text, message):
    recipe = tmp_path / "r.toml"
    recipe.write_text(text)

    with pytest.raises(OptionsError, match=message):
        read_recipe(recipe)


def test_a_whole_number_will_do_for_a_fraction(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text("[optimisation]\nlr = 1\n")

    assert parse(["--recipe", str(recipe)]).options.optimisation.lr == 1.0


def test_a_recipe_may_begin_with_the_mark_of_windows(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf[data]\r\nbatch_size = 3\r\n")

    assert read_recipe(path) == {"data": {"batch_size": 3}}


def test_a_recipe_that_is_not_there_names_those_that_are():
    with pytest.raises(OptionsError, match=r"nope: no such recipe; .* quick-cpu"):
        parse(["--recipe", "nope"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--epochs", "-1"], "epochs must be at least 1, got -1"),
        (["--size", "0"], "--size must be in [1, 8192], got 0"),
        (["--eval-size", "9000"], "--eval-size must be in [0, 8192], got 9000"),
        (["--start-size", "8193"], "--start-size must be in [0, 8192], got 8193"),
        (["--reweight", "often"], 'reweight must be "none", "inverse", "sqrt"'),
        (["--class-weights", "effective:2"], "BETA in [0, 1)"),
        (["--loss", "focal", "--label-smoothing", "0.1"], "--label-smoothing must be 0 with"),
        (["--name", "../up"], "name must be a plain folder name"),
        (["--loader", "magic"], "--loader must be one of auto, native"),
        (["--step-epochs", "1,x"], "--step-epochs must be whole numbers such as 20,25, got '1,x'"),
        (["--resume", "--recipe", "quick-cpu"], "leave out --recipe"),
        (["--hue", "0.6"], "hue must be in [0, 0.5], got 0.6"),
        (["--hue", "nan"], "--hue must be a finite number, got nan"),
        (["--crop-area", "0"], "--crop-area must be in [1e-06, 1], got 0.0"),
        (["--crop-area", "1.5"], "--crop-area must be in [1e-06, 1], got 1.5"),
        (
            ["--crop", "centre", "--crop-area", "0.3"],
            'crop-area is of the crop "random-resized" alone: leave it out with "centre"',
        ),
        *(
            (["--auto-augment", rule], "auto-augment must be " + '"none", "trivial", ')
            for rule in ("Trivial", "randaugment:2", "randaugment:a:9", "trivial:3", "", "rand")
        ),
        (["--auto-augment", "randaugment:0:9"], "operations must be in [1, 16], got 0"),
        (["--auto-augment", "randaugment:2:31"], "magnitude must be in [0, 30], got 31"),
        (["--ramp-from", "0.9"], "must rise within [0, 1], got 0.9 and 0.8"),
    ],
)
def test_a_wrong_flag_ends_with_status_2_and_a_sentence(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        parse(arguments)

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_table_and_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    for name, table in tables().items():
        assert f"\n{name}:\n" in text
        for key in fields(table):
            assert f"--{key.replace('_', '-')}" in text


def make_run(folder: Path, epochs: int, age: int) -> None:
    folder.mkdir(parents=True)
    options = Options(schedule=ScheduleOptions(epochs=epochs), run=RunOptions(name="old name"))
    (folder / "options.toml").write_text(to_toml(options))
    (folder / "last.pt").write_bytes(b"")
    os.utime(folder / "last.pt", (age, age))


def test_resume_takes_the_options_of_the_latest_run_and_of_the_command_line(tmp_path):
    make_run(tmp_path / "first", 5, 2000)
    make_run(tmp_path / "second", 7, 1000)

    latest = parse(["--resume", "--runs", str(tmp_path), "--threads", "3"])
    named = parse(["--resume", "--runs", str(tmp_path), "--name", "second"])

    assert latest.resume
    assert latest.options.schedule.epochs == 5
    assert latest.options.data.threads == 3
    assert (latest.options.run.runs, latest.options.run.name) == (str(tmp_path), "first")
    assert (named.options.schedule.epochs, named.options.run.name) == (7, "second")


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(OptionsError, match=r"no run with a last\.pt to resume"):
        latest_run(tmp_path)


def test_every_flag_that_the_documentation_names_exists(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    exist = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))

    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")

    named = set(re.findall(r"--[a-z][a-z-]+", text)) - {"--nproc-per-node", "--help"}
    assert len(named) > 20
    assert named <= exist
