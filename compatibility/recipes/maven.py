"""Java programs from the repository that Maven is set up with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compatibility.recipe import Recipe, run

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>registrator</groupId>
  <artifactId>compatibility</artifactId>
  <version>1</version>
  <dependencies>
{}
  </dependencies>
</project>
"""
DEPENDENCY = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"
)


@dataclass(frozen=True)
class Maven(Recipe):
    """Fetches `artifacts` (``group:artifact:version``) and all that they depend on.

    The variable named `variable` has the class path of the result.
    """

    artifacts: tuple[str, ...]
    variable: str

    def make(self, folder: Path) -> None:
        dependencies = (DEPENDENCY.format(*each.split(":")) for each in self.artifacts)
        (folder / "pom.xml").write_text(POM.format("\n".join(dependencies)))
        goal = "dependency:copy-dependencies"
        run(["mvn", "-q", "-B", goal, f"-DoutputDirectory={folder / 'jars'}"], folder)

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {self.variable: f"{folder / 'jars'}/*"}
