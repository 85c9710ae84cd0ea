"""What a person reads of an epoch."""

import math

from covseg.training.epoch_words import best_so_far, epoch_line, strata_columns

ROW = {
    "epoch": 3.0, "train_loss": 0.5, "val_loss": 0.4, "val_dice": 0.7, "val_covid_dice": 0.65,
    "val_normal_dice": math.nan, "val_right_side_dice": 0.5, "val_operating_dice": 0.6, "val_accuracy": 0.9,
}  # fmt: skip


def test_a_line_names_strata_as_a_reader_does_and_leaves_out_what_was_not_counted():
    line = epoch_line(ROW)
    assert line == (
        "epoch 3: loss .500, Val loss .400, Dice .700 (COVID-19 .650, right_side .500), Dice at specificity .98 .600"
    )
    assert "nan" not in line and "val_" not in line
    assert list(strata_columns(ROW)) == ["val_covid_dice", "val_normal_dice", "val_right_side_dice"]


def test_the_best_epoch_is_told_as_it_comes_and_each_seed_begins_anew():
    line, said = best_so_far("val_dice"), []
    for epoch, dice in ((1, 0.5), (2, 0.4), (3, math.nan), (4, 0.6), (1, 0.1)):
        said.append("best" in line(ROW | {"epoch": epoch, "val_dice": dice}))
    assert said == [True, False, False, True, True]
