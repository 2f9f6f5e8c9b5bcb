"""The label table that NIfTI label files carry in their first extension: CaretExtension XML."""

from __future__ import annotations

from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import quoteattr

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from napari_sam_med.errors import LabelError
from napari_sam_med.volume.organs import MAX_CLASS_ID, Organ, OrganTable

__all__ = ["from_xml", "to_xml"]


def to_xml(organs: OrganTable) -> bytes:
    """The table as XML, UTF-8; the layout is the one that TotalSegmentator writes and reads."""
    rows = "".join(
        '<Label Key={} Red={} Green={} Blue={} Alpha="1"><![CDATA[{}]]></Label>'.format(
            quoteattr(str(organ.class_id)),
            *(quoteattr(f"{value:.6g}") for value in organ.color),
            organ.name.replace("]]>", "]]]]><![CDATA[>"),
        )
        for organ in organs.values()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><CaretExtension><VolumeInformation Index="0">'
        f"<LabelTable>{rows}</LabelTable><VolumeType><![CDATA[Label]]></VolumeType>"
        "</VolumeInformation></CaretExtension>"
    ).encode()


def from_xml(content: bytes) -> OrganTable | None:
    """The table of an extension; None where the extension is something else or cannot be read."""
    content = content.rstrip(b"\0").strip()
    if b"LabelTable" not in content:
        return None
    try:
        root: Element = fromstring(content)
        organs = {}
        for label in root.iter("Label"):
            class_id = int(label.get("Key", ""))
            if not 1 <= class_id <= MAX_CLASS_ID:  # key 0 is the background row that some writers add
                continue
            red, green, blue = (
                min(max(float(label.get(part, "1")), 0.0), 1.0) for part in ("Red", "Green", "Blue")
            )
            name = (label.text or "").strip() or f"label {class_id}"
            organs[class_id] = Organ(class_id, name, (red, green, blue))
    except (ParseError, DefusedXmlException, ValueError, LabelError):
        return None
    return OrganTable(organs.values())
