"""Plain words for every status, reason, flag, grade and scale that the report shows.

Text only: what a clinician or an engineer must know to read a number, said where it stands. A word
that this version does not know (a table from a newer covseg) is shown with `UNKNOWN`, never dropped.
"""

from __future__ import annotations

UNKNOWN = "Not described in this version of the report; see the documentation of the version that wrote the table."

STATUSES = {
    "scored": "Has a mask and a row of numbers.",
    "out_of_scope": (
        "Nothing is wrong with the file, but it is no frontal chest radiograph, or was taken for none: the input "
        "filter’s judgement can be wrong."
    ),
    "quarantined": "Something is wrong with the file, or with the model’s answer to it.",
    "changed": "The file changed between planning and reading.",
    "missing": "The file was planned, but gone when it was read.",
}

REASONS = {
    "not_an_image": (
        "The content is not an image: text, a directory file, a DICOM object without a picture. Judged by "
        "content, not by name."
    ),
    "not_radiograph": (
        "Taken for an image that is no radiograph: a mask, a CT slice, a photograph. A judgement, which can be wrong; "
        "the detail gives score and limit."
    ),
    "not_frontal_chest": (
        "Taken for something else than an upright frontal view of the chest: a lateral view, another part of the "
        "body, a turned or inverted image. A judgement, which can be wrong; the detail gives score and limit."
    ),
    "multi_frame": "Several frames in one file; a chest radiograph has one.",
    "empty": "The file has no content.",
    "unreadable_format": "A format that covseg does not read.",
    "truncated": "The file ends too early; part of the image is missing.",
    "corrupt": "The file is damaged and cannot be decoded faithfully.",
    "missing_decoder": "The compression needs a decoder that is not installed.",
    "unsupported_mode": "A colour or pixel layout that cannot be read as grey values without guessing.",
    "too_large": "More pixels than the limit; refused from the header, before decoding.",
    "too_small": "Too few pixels to show a chest.",
    "no_contrast": "All pixels are nearly the same grey.",
    "burned_in_annotation": "The header says that text is burned into the image; it could name a patient.",
    "access_denied": "The file may not be read by the user that scored; those beside it may.",
    "checksum_mismatch": "The bytes that arrived are not the bytes that were listed.",
    "nonfinite_logits": "The model answered with numbers that are not finite.",
    "worker_killed": "Scoring this file ended its process twice.",
    "changed": "The file changed between planning and reading; it was not scored under its old identity.",
    "missing": "Listed, but gone when it was read.",
}

FLAGS = {
    "inverted": "The grey values look inverted (bone dark).",
    "rotated": "The image looks rotated or mirrored.",
    "lungs_not_found": "No lung was found. The fractions are empty, which is not the same as 0 %.",
    "one_lung_only": "Only one lung was found, or nearly so.",
    "merged_lungs": "The two lung masks touched and were split at the midline; right and left are approximate.",
    "lung_area_out_of_range": "The lung area is unusually small or large for the image.",
    "lung_ratio_out_of_range": (
        "The right and left lung differ unusually in area. Dense disease can fall out of the lung mask: the "
        "fraction may be too low."
    ),
    "infection_outside_lung": (
        "Much of what the model marked lay outside the lung mask and was cut off: the fraction may be too low."
    ),
    "low_contrast": "The image has little contrast.",
    "out_of_distribution": (
        "The image is unlike those that the model was tuned on: at the border of what the input filter refuses, or "
        "beyond it in a run that flags instead."
    ),
    "ensemble_disagreement": "The models of the ensemble disagree on this image.",
    "lungs_touch_border": "The lungs reach two or more sides of the image: part of the chest is cut off.",
    "low_resolution": "Fewer pixels, or less fine detail, than the images that the model learnt from.",
    "sharpness_out_of_range": (
        "Unusually blurred, or unusually sharp or noisy, beside the images that the model learnt from."
    ),
    "uneven_sharpness": "Much sharper in one direction than across it: something moved, or a grid shows.",
    "evened_contrast": "The contrast was made even over the image: unlike the images that the model learnt from.",
    "heavy_compression": "Strong JPEG compression shows as blocks of 8 × 8 pixels.",
    "few_grey_levels": "The image has few distinct grey levels.",
    "border": "A wide border of one grey lies along a side of the image.",
    "burned_in_text": (
        "Letters are burned into the image: they could name a patient. Most small ones are not noticed."
    ),
    "laterality_unverified": (
        "The file does not say that the patient’s right is on the left of the image, or says otherwise; "
        "it is taken to be there."
    ),
    "duplicate_content": "The same bytes appear under another input of this cohort.",
    "missing_spacing": "The file gives no usable pixel spacing, so no area in mm² is reported.",
}

# Largest part of an image's doubt.
DOUBTS = {
    "undecided_pixels": "many pixels are neither clearly marked nor clearly unmarked",
    "near_threshold": "the infection probability is near the model’s image-level threshold",
    "wide_interval": "the interval of the marked fraction is wide",
    "colour_unmarked": "pixels reach the pixel threshold, yet nothing is marked",
    "lungs_not_found": "no lung was found",
    "beyond_input_filter": "the input filter would refuse the image",
}
DOUBT = (
    "Doubt is a number from 0 to 1 to sort by, made of what the answer itself shows (column doubt; doubt_reason names "
    "its largest part). It is no probability of an error, and low doubt does not make a number right: an image on "
    "which the model is sure and wrong has none. The model’s evaluation says how many of its largest errors the first "
    "tenth and fifth of doubt hold."
)

# By id of the grade table that stands in the rows: the edges of each grade, as share of the lung area.
GRADE_TABLES = {
    "area-share-1": {
        "none": "0 %",
        "mild": "above 0, under 25 %",
        "moderate": "25 to under 50 %",
        "severe": "50 to 75 %",
        "critical": "above 75 %",
    },
}
GRADE = (
    "A grade is a name for a share of lung area, and no more: it is not clinical severity. "
    "Of 1,864 COVID-19 images in the training data, the reference masks themselves make 651 (35 %) critical."
)

# One sentence per scale: what it is, its range, what it is not.
SCALES = {
    "infected_fraction": (
        "Marked fraction",
        (
            "Share of the lung area on the radiograph that the model marked, 0 to 100 % (column infected_fraction). "
            "Projected area, never volume."
        ),
    ),
    "extent_0_8": (
        "Extent, 0 to 8",
        (
            "Each lung scores 0 (none), 1 (under 25 %), 2 (25 to under 50 %), 3 (50 to 75 %) or 4 (above 75 % of "
            "its area); the two are added. Extent only, not density (Wong et al. 2020)."
        ),
    ),
    "zones_extent_0_24": (
        "Zone extent, 0 to 24",
        "The same steps, 0 to 4, for each of six zones, added. Extent only: not a Brixia or RALE score.",
    ),
    "zones_affected_0_6": (
        "Zones affected, 0 to 6",
        "How many of the six zones hold any marked pixel.",
    ),
    "infection_probability": (
        "Infection probability",
        (
            "The model’s estimate, 0 to 1, that the image shows any infection as COVID-QU-Ex labels it. It is about "
            "the image as a whole, not about a pixel. Under the model’s image-level threshold nothing is marked on the "
            "image."
        ),
    ),
}

INTERVAL = (
    "Stands with a marked fraction. On images like those that the model was tuned on, the fraction of the reference "
    "masks lies inside about as often as the level says, or more often (the model’s card gives level and measurement). "
    "Another archive, detector or population has other errors, which it does not cover."
)

ZERO = (
    "A marked fraction of 0 % means that the model marked nothing on the radiograph. It does not mean clear lungs. "
    "In the training data (COVID-QU-Ex), radiographs of pneumonia other than COVID-19 have empty infection masks, "
    "exactly like normal ones, and each class was taken from its own collections. So the model may "
    "leave another pneumonia unmarked or mark it, and may in part recognise which collection a radiograph comes from."
)

PRESENCE = (
    "Nothing is marked on an image whose infection probability (of the image as a whole) is under the model’s "
    "image-level threshold, whatever its pixels reach: its marked fraction is 0 %, while its probability picture, "
    "which comes before any threshold, can still show colour."
)

LIMITS = (
    ("Resolution", (
        "The training images are 256 × 256 pixels and the model has seen nothing finer. Small or faint findings "
        "can be lost, however large the radiograph is."
    )),
    ("One data set", (
        "Trained and tuned on COVID-QU-Ex alone. How well the model does on another hospital’s radiographs is not "
        "known until it is measured there."
    )),
    ("Each class has its own source", (
        "In that data set, radiographs of COVID-19, of other pneumonia and of normal chests come from different "
        "collections. A model can use traces of the collection instead of the disease."
    )),
    ("No patient identifiers", (
        "The data set does not say which radiographs belong to one patient, so those of one patient may be in both "
        "training and validation, and measured quality may be too good."
    )),
    ("A second reader", (
        "Radiologists who outlined 49 of these radiographs again agreed with the reference masks at a mean Dice of .64."
        " The reference is one opinion; an agreement far above that is agreement with that opinion."
    )),
    ("Area, not volume", (
        "A radiograph is a projection. The fraction is projected area inside the visible lung; disease behind the"
        " heart or below the diaphragm is not counted, and it is never a volume."
    )),
    ("Dense disease", (
        "Dense consolidation can fall out of the lung mask, so that the fraction can be too low in the sickest. "
        "The flags on lung area, ratio and infection outside the lung point to such images."
    )),
    ("Extent only", "A binary mask supports extent. It says nothing of density, opacity type or cause."),
)  # fmt: skip
