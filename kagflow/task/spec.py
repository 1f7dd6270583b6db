"""The competition as plain data that travels with the pack."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from kagflow.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["segmentation", "classification"]


@dataclass(frozen=True)
class TaskSpec:
    """Describe one competition.

    `classes` are the labels as the CSV writes them. `height` and `width` are pixels, None where
    image sizes vary. `metric` is resolved by `kagflow.task.metric.load`. For classification,
    `value_column` holds class labels separated by spaces, and `exclusive` means exactly one.
    """

    slug: str
    kind: Kind
    classes: tuple[str, ...]
    height: int | None = None
    width: int | None = None
    metric: str = "dice"
    image_column: str = "ImageId"
    class_column: str = "ClassId"
    value_column: str = "EncodedPixels"
    exclusive: bool = False
    train_csv: str = "train.csv"
    train_images: str = "train_images"
    test_images: str = "test_images"
    sample_submission: str = "sample_submission.csv"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        if self.kind not in ("segmentation", "classification"):
            raise DataError(
                f"{self.slug}: kind is {self.kind!r}",
                hint="Write kind: segmentation or kind: classification.",
            )
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(
                f"{self.slug}: classes must be different from each other and at least one",
                hint="List each class label of the CSV once under classes:.",
            )
        if any(not name or " " in name or "," in name for name in self.classes):
            raise DataError(
                f"{self.slug}: a class label is empty or holds a space or comma: {self.classes}",
                hint="Write the class labels as the CSV writes them.",
            )

    @property
    def joined_column(self) -> str:
        """Name the first column of the joined CSV form, such as ImageId_ClassId."""
        return f"{self.image_column}_{self.class_column}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `from_dict` reads them back."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raise DataError on keys that are unknown or missing."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted({"slug", "kind", "classes"} - set(values))
        if unknown or missing:
            raise DataError(
                f"task description: unknown keys {unknown}, missing keys {missing}",
                hint="The file was written by another version of kagflow: make it again.",
            )
        return cls(**{**values, "classes": tuple(values["classes"])})
