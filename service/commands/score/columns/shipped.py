"""A model as it is sent to another machine: its files, which are opened there."""

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct, structs

from service.batch.scorer import Scorer
from service.catalog.place import Place
from service.engine.trial import Trial
from service.errors import CannotScore
from service.settings import Settings


class Shipped(Struct, frozen=True):
    """The files of a model, from a folder in which it is found by its name."""

    name: str  # `iris/1`, or the name of an .onnx file
    files: dict[str, bytes]
    settings: Settings
    trial: Trial  # what was seen of it here

    def open(self) -> Scorer:
        """Open the model, which tests itself. Raises ServiceError, OSError."""
        with TemporaryDirectory() as name:  # an open model needs no files
            folder = Path(name)
            for path, content in self.files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            settings = structs.replace(self.settings, models_dir=folder)
            found = folder / self.name if self.name.endswith(".onnx") else self.name
            return Scorer(found, settings, trial=self.trial)


def shipped(place: Place, scorer: Scorer) -> Shipped:
    """Return a model to send. Raises CannotScore where its files are others than were opened."""
    home = Path(place.name) if place.model else Path()
    files = {}
    for each in scorer.model.files:
        try:
            content = (place.path.parent / each.name).read_bytes()
        except OSError as error:
            raise CannotScore(f"{place.name}: cannot be read: {error.strerror}") from error
        if sha256(content).hexdigest() != each.sha256:
            raise CannotScore(f"{place.name}: {each.name} was changed since it was opened")
        files[str(home / each.name)] = content
    name = place.name if place.model else place.path.name
    # What was opened here is what is approved.
    settings = structs.replace(scorer.settings, pins="listed", pins_file=None)
    return Shipped(name, files, settings, scorer.model.trial)
