"""What drawn streets can be asked for: conditions and splits."""

from __future__ import annotations

CONDITIONS: dict[str, str] = {
    "day": "a clear or lightly clouded day",
    "fog": "the day scene in fog of 0.01 per metre (visibility about 300 m)",
    "fog-0.005": "the day scene in thin fog, 0.005 per metre (visibility about 600 m)",
    "fog-0.01": "the same as fog",
    "fog-0.02": "the day scene in thick fog, 0.02 per metre (visibility about 150 m)",
    "rain": "overcast, streaks, haze with depth, and a wet road that mirrors the scene",
    "dusk": "between day and night: less light, a red sky above the houses, lamps and windows come on",
    "night": "street lamps, headlights, lit windows, little other light, more noise",
    "snow": "falling flakes, grey sky, white ground and white tops of things",
}

SPLITS: dict[str, tuple[int, int]] = {"train": (1, 500), "val": (2, 100), "test": (3, 100)}
"""Split -> (seed, number of scenes)."""

FOG: dict[str, float] = {"fog": 0.01, "fog-0.005": 0.005, "fog-0.01": 0.01, "fog-0.02": 0.02}
"""Condition -> beta per metre: fog is laid over the finished day image."""
