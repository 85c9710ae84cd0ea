"""An evaluation as one screen of text: 120 columns, about 50 lines."""

from __future__ import annotations

from covseg.evaluation.records import ControlLine, DoubtLine, Evaluation, Robustness, ShiftLine
from covseg.metrics.convention import REDUCTIONS, Empty, pixel_metrics
from covseg.metrics.intervals import short
from covseg.metrics.mask_metrics import MASK_METRICS
from covseg.metrics.summary import ALL, NEGATIVES


def screen(evaluation: Evaluation) -> list[str]:
    """Lay the whole table on one screen, the headline first."""
    data, headline = evaluation.data, evaluation.headline
    specificity = headline["negative_specificity"]
    refused = sum(count for reasons in data.refused.values() for count in reasons.values())
    return [
        f"{evaluation.model.id} on {data.name} {data.split}: {data.images} images ({data.counted})",
        *_overlap(evaluation),
        f"negative specificity:     {specificity}  (n {specificity.n})",
        f"lung mask: {evaluation.lung_mask}; refused {refused}; left out {len(data.excluded)}",
        *(f"WARNING  {warning}" for warning in evaluation.warnings),
        *_pixel_table(evaluation, [*data.strata, ALL]),
        *_other_table(evaluation, [*data.strata, NEGATIVES, ALL]),
        *doubt_text(evaluation.doubt),
        *robustness_lines(evaluation.robustness),
        _last(evaluation),
    ]


def _overlap(evaluation: Evaluation) -> list[str]:
    """Say Dice and IoU of COVID-19 images; of a set without, of each stratum whose images all have infection."""
    headline, clean = evaluation.headline, ("both_empty", "false_alarm")
    if headline["covid_dice"].n:
        return [f"COVID-19 only, per image: Dice {headline['covid_dice']}  IoU {headline['covid_iou']}"]
    strata = [name for name in evaluation.data.strata if not any(evaluation.surface_status[name][one] for one in clean)]
    found = {
        name: [evaluation.line(name, "infection", metric, "image", "skip") for metric in ("dice", "iou")]
        for name in strata
    }
    return [f"{name}, per image: Dice {dice}  IoU {iou}" for name, (dice, iou) in found.items() if dice and iou]


def _pixel_table(evaluation: Evaluation, rows: list[str]) -> list[str]:
    """One line per stratum and metric, one column per convention."""
    lines = [
        f"{'infection mask':<26}" + "".join(f"|{reduction!s:^18}" for reduction in REDUCTIONS),
        f"{'what 0/0 is worth:':<26}" + ("|" + "".join(f"{empty:>6}" for empty in Empty)) * len(REDUCTIONS),
    ]
    metrics = pixel_metrics()
    for stratum in rows:
        for metric in metrics:
            cells = [
                "|" + "".join(_cell(evaluation, stratum, "infection", metric, str(reduction), empty) for empty in Empty)
                for reduction in REDUCTIONS
            ]
            lines.append(f"{stratum if metric == metrics[0] else '':<12} {metric:<13}" + "".join(cells))
    return lines


def _cell(evaluation: Evaluation, *key: str, digits: int = 3, width: int = 6) -> str:
    line = evaluation.line(*key)
    return f"{short(line.value, digits) if line else '-':>{width}}"


def _columns() -> dict[str, tuple[tuple[str, ...], int]]:
    """Map heads of the second table to a line's part, metric, reduction and policy, and to the decimals shown."""
    masks = {
        metric.title.partition(",")[0]: ((metric.part, name), metric.digits) for name, metric in MASK_METRICS.items()
    }
    return {
        "sens": (("image level", "sensitivity"), 3),
        "spec": (("image level", "specificity"), 3),
        "AUROC": (("image level", "auroc"), 3),
        **masks,
        "fr.MAE": (("fraction", "mae"), 3),
        "bias": (("fraction", "bias"), 3),
        "r": (("fraction", "pearson_r"), 3),
        "LoA-": (("fraction", "limit_low"), 3),
        "LoA+": (("fraction", "limit_high"), 3),
        "FParea": (("error", "false_positive_area"), 3),
        "lung": (("lung", "dice", "image", "one"), 3),
    }


def _other_table(evaluation: Evaluation, rows: list[str]) -> list[str]:
    """Image level, masks, fraction: one line per stratum, statuses beside the boundary means."""
    columns = _columns()
    widths = {head: max(7, len(head) + 1) for head in columns}
    lines = [f"{'':<12}{''.join(f'{head:>{width}}' for head, width in widths.items())}  missed/alarm/refused"]
    for stratum in rows:
        cells = "".join(
            _cell(evaluation, stratum, *key, digits=digits, width=widths[head])
            for head, (key, digits) in columns.items()
        )
        counts = "/".join(
            str(evaluation.surface_status[stratum][name]) for name in ("missed", "false_alarm", "refused")
        )
        lines.append(f"{stratum:<12}{cells}  {counts}")
    return lines


def doubt_text(line: DoubtLine | None) -> list[str]:
    """Say in one line how many of the largest errors doubt finds; nothing where it was not measured."""
    if line is None:
        return []
    shares = " / ".join(short(part.value, 2) for part in (line.tenth, line.fifth, line.third))
    found = f"doubt: first tenth / fifth / third hold {shares} of the worst tenth of errors"
    return [f"{found}; fifth {line.fifth}, by presence alone {short(line.presence_fifth, 2)}, n {line.fifth.n}"]


def robustness_lines(found: Robustness) -> list[str]:
    """Say what the control, the twins and the shifts showed, the worst shift first; nothing where nobody asked."""
    lines = _control(found.control)
    if found.twins or found.shifts:
        lines.append(
            f"{'images':<36}{'n':>5}{'COVID-19 Dice':>15}{'lost':>7}{'specif.':>9}{'lost':>7}{'marked':>8}{'lung':>6}"
            f"{'fr.r':>6}{'refused':>9}{'flagged':>9}{'agree':>7}{'>= .9':>7}"
        )
    lines += [_robustness_line(line) for line in (*found.twins, *found.worst_first)]
    return [*lines, "* nothing like it in training"] if any(not line.seen for line in found.shifts) else lines


def _control(control: tuple[ControlLine, ...]) -> list[str]:
    """One line a control, one column a group of images without infection."""
    against = dict.fromkeys(line.against for line in control)
    lines = [f"{'control: AUROC of the probability against':<46}" + "".join(f"{name:>22}" for name in against)]
    for words in dict.fromkeys(line.words for line in control):
        cells = {line.against: str(line.auroc) for line in control if line.words == words}
        lines.append(f"{words:<46}" + "".join(f"{cells.get(name, '-'):>22}" for name in against))
    return lines if control else []


def _robustness_line(line: ShiftLine) -> str:
    words = line.words + ("" if line.seen else " *") + (f", {line.by_design} by design" if line.by_design else "")
    dice = f"{short(line.covid_dice_as_it_is)} {short(line.covid_dice.value)}"
    cells: list[tuple[float, int]] = [
        (line.covid_dice_lost.value, 7), (line.specificity.value, 9), (line.specificity_lost.value, 7),
        (line.marked, 8), (line.lung_dice.value, 6), (line.fraction_r.value, 6), (line.refused, 9),
        (line.flagged, 9), (line.agreement, 7), (line.kept, 7),
    ]  # fmt: skip
    return f"{words:<36}{line.images:>5}{dice:>15}" + "".join(f"{short(value):>{width}}" for value, width in cells)


def _last(evaluation: Evaluation) -> str:
    lesions, cost = evaluation.lesions, evaluation.cost
    used = f"; use {evaluation.test_use} of Test is in the ledger" if evaluation.test_use else ""
    return (
        f"small lesions missed {lesions['small_missed']}/{lesions['small_lesions']}; {cost.parameters / 1e6:.2f} M "
        f"parameters, {short(cost.gflop, 2)} GFLOP, {short(cost.images_per_second, 2)} images/s ({cost.backend}){used}"
    )
