"""Shadows: follows which versions serve, and lets those be compared that TORCHLIT_SHADOW names."""

import asyncio
import logging

from service.catalog.agreement import Agreement
from service.catalog.catalog import Catalog
from service.catalog.served import ServedModel, other_promises
from service.catalog.shadow import Absent, Disagreements, Shadow
from service.errors import InvalidSetting
from service.metrics import Metrics, ShadowMetrics
from service.settings import Settings, variable_name
from service.settings.shadows import Shadowing

logger = logging.getLogger("torchlit.shadow")

CLOSE_S = 1.0  # that an end waits for what runs in shadows; it does not last longer for them


class Pair:
    """A version and its shadow, as they are now."""

    def __init__(self, said: Shadowing, keep: int) -> None:
        self.said = said
        self.disagreements = Disagreements(keep)
        self.why_not = "nothing was opened yet"  # they are compared now, nothing if they are
        self.metrics: ShadowMetrics | None = None  # once the version served
        self.shadow: Shadow | None = None
        self.served: tuple[ServedModel | None, ServedModel | None] = None, None


class Shadows:
    """The versions that are compared."""

    def __init__(self, settings: Settings, catalog: Catalog, metrics: Metrics) -> None:
        self.pairs = [Pair(each, settings.shadow_keep) for each in settings.shadow]
        self._longest_run_s = settings.request_timeout_s
        self._catalog = catalog
        self._metrics = metrics
        self._is_open = False
        self._ending = set[Shadow]()

    def open(self) -> None:
        """Begin with what serves now.

        Raises InvalidSetting for a version that is not there, and one that cannot stand for the
        other. One that could not be opened is waited for.
        """
        for pair in self.pairs:
            self._check(pair.said)
        self._is_open = True
        for pair in self.pairs:
            self._follow(pair)

    def follow(self, name: str) -> None:
        """Go on with what serves of a model now."""
        for pair in self.pairs if self._is_open else ():
            if pair.said.name == name:
                self._follow(pair)

    async def close(self) -> None:
        """Compare no longer; what still runs is told to end, and waited for CLOSE_S at most."""
        self._is_open = False
        for pair in self.pairs:
            self._part(pair)
        ending = list(self._ending)
        waiting = [asyncio.create_task(each.ended.wait()) for each in ending]
        if waiting:
            await asyncio.wait(waiting, timeout=CLOSE_S)
        for each in ending:
            each.release()
        await asyncio.gather(*waiting)

    def _check(self, said: Shadowing) -> None:
        variable = variable_name("shadow")
        found = []
        for number in (said.version, said.shadow):
            version = self._catalog.find((said.name, number))
            if version is None:
                versions = self._catalog.versions.get(said.name, ())
                known = ", ".join(str(each.version) for each in versions if each.version)
                raise InvalidSetting(
                    f"{variable}: {said}: expected versions of {said.name} that are opened "
                    f"({known or 'there are none'}), got {number}",
                    variable,
                )
            found.append(version.served)
        before, after = found
        if before and after and (other := other_promises(after.model, before.model)):
            raise InvalidSetting(
                f"{variable}: {said}: expected versions with the same input and outputs, got other "
                f"{other}",
                variable,
            )

    def _follow(self, pair: Pair) -> None:
        """Compare what serves now, if that is other than before; or say why not."""
        said = pair.said
        found = [self._catalog.find((said.name, each)) for each in (said.version, said.shadow)]
        before, after = (each.served if each else None for each in found)
        if (before, after) == pair.served:
            return
        self._part(pair)
        pair.served = before, after
        pair.why_not = self._why_not(pair, before, after)
        if pair.why_not:
            logger.warning("shadow %s: nothing is compared: %s", said, pair.why_not)
        else:
            share = "all rows" if said.share == 1 else f"a share of {said.share:g} of the rows"
            logger.info("shadow %s: compares %s", said, share)

    def _why_not(self, pair: Pair, before: ServedModel | None, after: ServedModel | None) -> str:
        """Begin to compare; say why not if that cannot be."""
        said = pair.said
        if before is None:
            return f"{said.name}/{said.version} does not answer"
        agreement = Agreement(before.model, before.model)
        pair.metrics = metrics = self._metrics.add_shadow(
            *(said.name, str(said.version), str(said.shadow)),
            labels=agreement.labels,
            differences=agreement.differences,
        )
        why_not, shadow = "", None
        if after is None:
            why_not = f"{said.name}/{said.shadow} does not answer"
        elif other := other_promises(after.model, before.model):
            why_not = f"{said.name}/{said.shadow} has other {other}"
        else:
            shadow = Shadow(
                *(str(said), before.model, after, said.share, metrics),
                *(pair.disagreements, self._longest_run_s),
            )
            try:
                shadow.start()
            except RuntimeError:
                why_not, shadow = "no thread can be started for it", None
        pair.shadow = shadow
        absent = Absent(said.share, metrics)
        before.show((shadow or absent).ran)
        return why_not

    def _part(self, pair: Pair) -> None:
        """Compare what served until now no longer."""
        before, _ = pair.served
        pair.served = None, None
        if before is not None:
            before.show(None)
        if pair.shadow is not None:
            self._ending = {each for each in self._ending if not each.ended.is_set()}
            self._ending.add(pair.shadow)
            pair.shadow.end()
            pair.shadow = None
