"""The software bill of materials of a delivery, as CycloneDX 1.6 JSON.

Owns what is written about each part: name, version, licence, SHA-256, and which part needs which. The same folder gives
the same bytes: the serial number comes from the checksums and the time from the caller.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from licences import Notice
from packageurl import PackageURL
from packaging.utils import canonicalize_name
from wheel_file import Target, WheelFile, WheelhouseError

_KINDS = {
    "wheel": ComponentType.LIBRARY,
    "compiled in": ComponentType.LIBRARY,
    "bundle": ComponentType.MACHINE_LEARNING_MODEL,
}


def write_sbom(
    path: Path,
    product: Notice,
    notices: Sequence[Notice],
    files: dict[str, Path],
    wheels: Iterable[WheelFile],
    target: Target,
    when: datetime,
) -> None:
    """Write the bill of materials of a folder and check it against the schema.

    Args:
        path: The file to write.
        product: The SDK itself.
        notices: Every other part.
        files: The delivered file of a part, by the part's name; parts compiled in have none.
        wheels: The dependency wheels; they say who needs whom.
        target: The machine that the delivery is for: it decides which requirements hold.
        when: The time to write into it.

    Raises:
        WheelhouseError: What was written breaks the schema.
    """
    root = _component(product, files.get(product.name), ComponentType.APPLICATION)
    parts = {notice.name: _component(notice, files.get(notice.name), _KINDS[notice.kind]) for notice in notices}
    bom = Bom(components=parts.values(), serial_number=_serial(files.values()))
    bom.metadata = BomMetaData(component=root, timestamp=when)
    needs = {wheel.name: [canonicalize_name(need.name) for need in wheel.requirements(target)] for wheel in wheels}
    bom.register_dependency(root, parts.values())
    for name, part in parts.items():
        bom.register_dependency(part, [parts[need] for need in needs.get(name, []) if need in parts])
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    check_sbom(text)
    path.write_text(text + "\n", encoding="utf-8")


def check_sbom(text: str) -> None:
    """Check a bill of materials against the schema of CycloneDX 1.6.

    Raises:
        WheelhouseError: It breaks the schema.
    """
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise WheelhouseError(f"The bill of materials breaks the schema of CycloneDX 1.6: {problem}")


def _component(notice: Notice, file: Path | None, kind: ComponentType) -> Component:
    make = LicenseFactory()
    stated = LicenseAcknowledgement.DECLARED
    pages = [ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(notice.source))] if notice.source else []
    return Component(
        type=kind,
        name=notice.name,
        version=notice.version,
        bom_ref=f"{notice.name}@{notice.version}",
        licenses=[make.make_from_string(notice.licence, license_acknowledgement=stated)] if notice.licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_sha256(file))] if file else [],
        purl=PackageURL("pypi", None, notice.name, notice.version) if notice.kind == "wheel" else None,
        external_references=pages,
    )


def _serial(files: Iterable[Path]) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, " ".join(sorted(_sha256(file) for file in files)))


def _sha256(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()
