"""What the headings of tables mean, for readers of the page. Knows headings and no values."""

import re

_MEANINGS = {
    r"^Dice(?! without)": "twice the area shared with the annotated mask by the sum of both areas",
    r"^Precision\b": "annotated share of the mask; never marked: the smallest mask wins it",
    r"^Recall\b": "share of the annotation in the mask; never marked: the full mask wins it",
    r"^IoU\b": "shared area by the area of either",
    r"^Dice without border": "Dice without the frame of one pixel that PIE-Bench always annotates",
    r"^Boundary F": "agreement of the two masks' outlines, 1 if they run within 0.75 % of the "
    "image's diagonal of each other",
    r"^AP\b": "average precision of the soft map, whatever the threshold",
    r"^Sweep mean": "Dice averaged over all thresholds of the method",
    r"^Per image": "Dice with every image at its own best threshold, which no method can know",
    r"^Full %": "share of masks that cover the whole image",
    r"^Empty %": "share of masks without a pixel",
    r"^No map %": "share of samples for which the method has no map",
    r"^Mask area %": "share of the image that the edit may change",
    r"^n$": "number of samples",
    r"^PSNR\b": "likeness to the source, in dB: higher is closer",
    r"^MSE\b": "mean squared difference from the source",
    r"^SSIM\b": "structural likeness to the source",
    r"^LPIPS\b": "perceptual difference from the source",
    r"^CLIP\b": "agreement with the target prompt, 0 to 100",
    r"^lpips_": "perceptual difference from the source by a network of the data set's own, "
    "not comparable with LPIPS",
    r"^clip_": "agreement with the target prompt by encoders of the data set's own, "
    "not comparable with CLIP",
    r"^Structure distance": "difference in layout from the source (DINO)",
    r"^Error to target": "squared error to the true edit in the annotated part; 1 is doing nothing",
    r"^NFE\b": "evaluations of the U-Net",
    r"\binside\b": "in the annotated mask",
    r"\boutside\b": "outside the annotated mask",
    r"\bedited\b": "of the annotated part",
    r"\bwhole\b": "of the whole picture",
    r"\bsource\b": "of the unedited source",
}


def meaning(heading: str) -> str:
    """A heading's parts explained, joined by semicolons; empty if it speaks for itself."""
    return "; ".join(text for pattern, text in _MEANINGS.items() if re.search(pattern, heading))
