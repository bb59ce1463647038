"""Makes ``clips.npz``, the spoken digits, anew: ``python -m sample_models.digits.synthesise``.

Needs the program espeak-ng, which nothing else in the project does; the arrays it made are shipped. Each clip is one digit
word by one speaker (a voice of espeak-ng) in a random accent, speed and pitch, with noise at a random level, as a log-mel
picture of 32 bands by 48 frames (8 kHz, 16 ms a frame). Speakers are dealt to the splits, so that no voice is in two.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import scipy.io.wavfile
import scipy.signal

__all__ = ["log_mel", "main", "speak"]

CLIPS = Path(__file__).with_name("clips.npz")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = (
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
)
SPEAKERS = (
    *(
        "adam",
        "Alex",
        "Alicia",
        "Andrea",
        "Andy",
        "Annie",
        "antonio",
        "aunty",
        "belinda",
        "benjamin",
    ),
    *("boris", "caleb", "david", "Denis", "Diogo", "ed", "edward", "Gene", "Gustave", "Henrique"),
    *("Hugo", "iven", "Jacky", "john", "kaukovalta", "Lee", "linda", "marcelo", "Marco", "Mario"),
    *("max", "Michael", "michel", "miguel", "mike", "Nguyen", "pablo", "paul", "pedro", "quincy"),
    *("rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "zac", "f2", "m3"),
)
SPLITS = {"train": 30, "validation": 5, "test": 15}  # speakers
TAKES = 2
RATE, FRAME, HOP, BANDS, FRAMES = 8000, 256, 128, 32, 48
FLOOR = 62.0  # dB below the loudest bin that become black
LEVELS = 31  # steps of 2 dB: noise does not compress, and finer steps hold little but noise


def speak(word: str, *, voice: str, speed: int, pitch: int) -> np.ndarray:
    """One word as a waveform at 8 kHz, silence cut off at both ends, shape ``(n,)``."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    sound = subprocess.run(command, check=True, capture_output=True).stdout
    rate, wave = scipy.io.wavfile.read(io.BytesIO(_with_length(sound)))
    wave = scipy.signal.resample_poly(wave.astype(np.float64), RATE, rate)
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def log_mel(wave: np.ndarray) -> np.ndarray:
    """A waveform at 8 kHz as a picture, shape ``(32, 48)``, uint8, 31 the loudest bin, 1 less for every 2 dB."""
    size = HOP * (FRAMES - 1) + FRAME
    wave = np.pad(wave[:size], (0, max(0, size - len(wave))))
    transform = scipy.signal.ShortTimeFFT(
        np.hanning(FRAME), HOP, RATE, scale_to="magnitude", phase_shift=None
    )
    first = -(-(FRAME // 2) // HOP)
    power = np.abs(transform.stft(wave, p0=first, p1=first + FRAMES)) ** 2
    decibel = 10 * np.log10(_mel_filters(transform.f) @ power + 1e-12)
    scaled = (decibel - decibel.max() + FLOOR) / FLOOR
    return np.round(LEVELS * np.clip(scaled, 0, 1)).astype(np.uint8)


def main(path: Path = CLIPS, seed: int = 0) -> None:
    """Speak, disturb and store all clips: 2 takes of 10 digits by 50 speakers."""
    if shutil.which("espeak-ng") is None:
        sys.exit(
            "espeak-ng is not installed: apt-get install espeak-ng, or use the shipped clips.npz"
        )
    rng = np.random.default_rng(seed)
    speakers = rng.permutation(SPEAKERS)
    splits = np.repeat(list(SPLITS), list(SPLITS.values()))
    rows = []
    for speaker, split in zip(speakers, splits, strict=True):
        for digit, word in enumerate(WORDS):
            for take in range(TAKES):
                wave = speak(
                    word,
                    voice=f"{rng.choice(ACCENTS)}+{speaker}",
                    speed=int(rng.integers(120, 220)),
                    pitch=int(rng.integers(15, 85)),
                )
                # Up to 100 ms of lead, and noise 5 to 25 dB below the word.
                wave = np.pad(wave, (int(rng.integers(0, RATE // 10)), 0))
                level = wave.std() * 10 ** (-rng.uniform(5, 25) / 20)
                padded = np.pad(wave, (0, max(0, HOP * FRAMES + FRAME - len(wave))))
                picture = log_mel(padded + rng.normal(0, level, len(padded)))
                rows.append((picture, digit, f"{digit}-{speaker.lower()}-{take}", str(split)))
    mel, digit_column, clip, split_column = zip(*rows, strict=True)
    np.savez_compressed(
        path,
        mel=np.stack(mel),
        digit=np.array(digit_column, np.uint8),
        clip=np.array(clip),
        split=np.array(split_column),
    )
    print(f"{path}: {len(rows)} clips, {path.stat().st_size / 1e6:.2f} MB")


def _with_length(sound: bytes) -> bytes:
    """The same WAV with true lengths in its header, which espeak-ng cannot know while it streams."""
    size = len(sound) - 44
    return (
        sound[:4]
        + (size + 36).to_bytes(4, "little")
        + sound[8:40]
        + size.to_bytes(4, "little")
        + sound[44:]
    )


def _mel_filters(frequencies: np.ndarray) -> np.ndarray:
    """Triangular filters evenly spaced on the mel scale from 50 Hz to 4 kHz, shape ``(32, bins)``."""
    low, high = 2595 * np.log10(1 + np.array([50.0, RATE / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


if __name__ == "__main__":
    main()
