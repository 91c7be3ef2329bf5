"""The page of an evaluation: the findings, every question's section, and how it was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from avenir.evaluation.held_out import HeldOut
from avenir.evaluation.question import About, Measured, Question
from avenir.evaluation.readers.readout import CUT_OFF, ReadoutScore
from avenir.evaluation.report.findings import findings_list
from avenir.evaluation.report.html import details, how, page
from avenir.evaluation.report.tables import facts_list, with_bounds
from avenir.evaluation.results import Evaluation

Answered = Sequence[tuple[Question, Measured]]
"""Questions in the order of the page, and what they found."""


def evaluation_page(
    evaluation: Evaluation,
    answered: Answered,
    held_out: HeldOut,
    recipe: str,
    provenance: Mapping[str, Any],
) -> str:
    """Return the whole page as HTML; `recipe` is quoted, `provenance` is of the world's card."""
    about = About(evaluation.fps, evaluation.readout, evaluation.nearest_decoder)
    findings = [
        finding
        for question, measured in answered
        for finding in question.findings(measured.answer, about)
    ]
    sections = [findings_list(findings)]
    sections += [question.section(measured, about) for question, measured in answered]
    known = "" if evaluation.readout is None else readout_facts(evaluation.readout)
    known += details("What each number means", _definitions(evaluation, answered))
    sections.append(how(evaluation, recipe, provenance, known))
    shown = [section for section in sections if section]
    return page("Avenir evaluation", evaluation.world, _lead(evaluation, held_out), shown)


def _lead(evaluation: Evaluation, held_out: HeldOut) -> str:
    """Say on how much it was measured."""
    height, width = evaluation.size
    fps = evaluation.fps
    clips = (
        f"{len(held_out.windows):,} held-out clips from {len(set(held_out.groups)):,} recordings"
    )
    shape = f"({evaluation.source}), {width}×{height} pixels at {fps:g} frames per second"
    if not held_out.past:
        return f"An encoder on {clips} {shape}."
    futures = held_out.num_samples
    lead = (
        f"{clips} {shape}: {held_out.past / fps:.1f}\u00a0s observed, "
        f"{held_out.horizon / fps:.1f}\u00a0s imagined, "
        f"{futures} future{'s' * (futures > 1)} of each."
    )
    if evaluation.nearest_decoder is None:
        return lead
    return (
        f"{lead} The encoder cannot decode: what is shown and measured are those of "
        f"{evaluation.nearest_decoder:,} groups of training frames whose latents are nearest to "
        "what is predicted; so is the codec's line."
    )


def _definitions(evaluation: Evaluation, answered: Answered) -> str:
    """Explain every number on the page."""
    words = {
        "Interval": "95 %, from 1,000 draws of whole recordings with replacement.",
        "PSNR": "10·log10(1 / mean squared error), pixels in [0, 1]; at most 60 dB.",
        "PSNR of moving pixels": "over the pixels of which a colour channel differs from the last "
        "observed frame by more than 10 of 255 levels; frames without any are left out.",
        "SSIM": "Wang et al. 2004: 11×11 Gaussian window of deviation 1.5, mean over channels.",
    }
    for question, measured in answered:
        words |= question.definitions(measured.answer)
    if evaluation.readout is not None:
        words |= {
            "Ego position error": "distance between the middles of the ego’s pixels, read and "
            f"true, at most {CUT_OFF:g} px; an ego not found counts {CUT_OFF:g} px. Frames where "
            "less than half of it shows are left out.",
            "Object position error": "half the mean distance from each thing that is there to the "
            f"nearest read, half the reverse, at most {CUT_OFF:g} px each.",
            "Position error of what was hidden": "of things seen in the past, hidden at its end or "
            "later and back since: their mean distance to the nearest thing read, at most "
            f"{CUT_OFF:g} px; frames without any are left out.",
        }
    return facts_list(words)


def readout_facts(score: ReadoutScore) -> str:
    """Say how well the reader of positions reads real frames."""
    facts = {
        "Ego overlap (IoU)": with_bounds(score.ego_iou, 3),
        "Ego position error": f"{with_bounds(score.ego_error, 2)} px",
        "Object position error": f"{with_bounds(score.object_error, 2)} px",
        "Overlap of cars and trucks (IoU)": with_bounds(score.large_iou, 3),
        "Overlap of motorbikes and pedestrians (IoU)": with_bounds(score.small_iou, 3),
        "Pixels given their class": with_bounds(score.pixel_accuracy, 3),
    }
    return (
        '<div class="card"><h3>The reader of positions, on real test frames</h3>'
        f'<p class="note">{score.num_clips:,} recordings it never saw, {score.num_frames} frames '
        f"of each. No reading of imagined frames is finer than this.</p>{facts_list(facts)}</div>"
    )
