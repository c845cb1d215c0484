"""The limits of one evaluation: steps and bytes. They bound its time and its memory."""

from registrator.templates.errors import EvaluationError

MAX_STEPS = 10_000
MAX_BYTES = 64 * 1024

# So many bytes of a text count as a step more. Each item of a list or a map counts as so many.
BYTES_A_STEP = 1024
ITEM = 64


class Limits:
    """The steps of one evaluation so far. Both methods raise `EvaluationError` beyond a limit."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, size: int = 0) -> None:
        """Count a step, which looks at so many bytes."""
        self.steps += 1 + size // BYTES_A_STEP
        if self.steps > MAX_STEPS:
            raise EvaluationError(f"it takes more than {MAX_STEPS:,} steps")

    def fits(self, size: int) -> None:
        """Check the size of a text before it is made."""
        if size > MAX_BYTES:
            raise EvaluationError(f"it makes a text of over {MAX_BYTES // 1024} KiB")


class Output:
    """A text that is made of parts. It ends at the limit of bytes."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._parts: list[str] = []
        self._size = 0

    def add(self, part: str) -> None:
        """Add a part."""
        self._size += len(part) if part.isascii() else len(part.encode(errors="surrogateescape"))
        self.limits.fits(self._size)
        self._parts.append(part)

    @property
    def text(self) -> str:
        """All parts together."""
        return "".join(self._parts)
