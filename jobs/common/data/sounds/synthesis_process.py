"""The process that speaks: espeak-ng through its C interface. It is run as a file, with nothing of this package.

A JSON object on standard input: library and data, paths; voices, which must be there; utterances, [text, voice, pitch,
speed] each. On standard output a line of JSON, rate and lengths, and then the samples of all utterances, 16 bits each,
in the order of bytes of this machine. espeak-ng keeps its state in global variables, and what it cannot do it may
answer by ending the process: so it has one of its own. Source of the numbers: espeak-ng's speak_lib.h and espeak_ng.h,
version 1.52.
"""

import ctypes
import json
import sys

SYNCHRONOUS = 2  # audio output: to the callback, and the call returns when all is spoken
DO_NOT_EXIT = 0x8000
CHARACTERS = 1  # position type
UTF8 = 1
PHONEMES = 0x100  # what is between [[ and ]] is phonemes
RATE, VOLUME, PITCH = 1, 2, 3  # parameters

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main() -> int:
    request = json.load(sys.stdin)
    library = ctypes.CDLL(request["library"])
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, request["data"].encode(), DO_NOT_EXIT)
    if rate <= 0:
        print("espeak-ng finds no data", file=sys.stderr)
        return 1
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    parts: list[bytes] = []

    @CALLBACK
    def keep(samples, count, events):  # type: ignore[no-untyped-def]
        if count > 0 and samples:
            parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(keep)
    for voice in sorted({*request["voices"], *(voice for _, voice, _, _ in request["utterances"])}):
        if library.espeak_SetVoiceByName(voice.encode()):
            print(f"espeak-ng has no voice {voice!r}", file=sys.stderr)
            return 1
    spoken: list[bytes] = []
    for text, voice, pitch, speed in request["utterances"]:
        library.espeak_SetVoiceByName(voice.encode())
        library.espeak_SetParameter(RATE, speed, 0)
        library.espeak_SetParameter(PITCH, pitch, 0)
        library.espeak_ng_SetRandSeed(1)  # the breath of a voice; the seed is the time otherwise
        parts.clear()
        words = text.encode()
        if library.espeak_Synth(words, len(words) + 1, 0, CHARACTERS, 0, UTF8 | PHONEMES, None, None):
            print(f"espeak-ng cannot say {text!r}", file=sys.stderr)
            return 1
        library.espeak_Synchronize()
        spoken.append(b"".join(parts))
    header = {"rate": rate, "lengths": [len(each) // 2 for each in spoken]}
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + b"".join(spoken))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
