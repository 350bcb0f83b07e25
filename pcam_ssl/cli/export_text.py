"""What an export wrote, a line each."""

from typing import Any


def export_lines(written: dict[str, dict[str, Any]]) -> list[str]:
    """A line for the ONNX file, with how far it is from torch, and one for the embeddings, of those that were written."""
    told = {"onnx": _onnx_line, "parquet": _parquet_line}
    return [told[kind](facts) for kind, facts in written.items()]


def _onnx_line(facts: dict[str, Any]) -> str:
    checked = facts["checked"]
    largest = max(checked["largest_difference"].values())
    whose = facts["units"][0] if len(facts["units"]) == 1 else f"the mean of {len(facts['units'])} folds"
    return (
        f"{facts['file']}: {whose}, {', '.join(facts['outputs'])} of uint8 [batch, {facts['size_px']}, {facts['size_px']}, 3]; "
        f"checked against torch on {checked['n']} patches of {checked['dataset']}: largest difference {largest:.1e}, "
        f"allowed {checked['limit']:.0e}"
    )


def _parquet_line(facts: dict[str, Any]) -> str:
    return f"{facts['file']}: {facts['n']:,} embeddings of {facts['dimension']} values by {facts['unit']}"
