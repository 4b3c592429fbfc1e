"""METHODS: all that exist, by the name that a recipe calls them; `method.py` holds their contract."""

from segda.methods.advent import AdvEnt
from segda.methods.bdl import BDL
from segda.methods.cyclegan import CycleGAN
from segda.methods.dacs import DACS
from segda.methods.daformer import DAFormer
from segda.methods.dannet import DANNet
from segda.methods.ease import EASE
from segda.methods.ebda import EBDA
from segda.methods.esl import ESL
from segda.methods.fda import FDA
from segda.methods.method import Method
from segda.methods.mgcda import MGCDA
from segda.methods.mic import MIC
from segda.methods.minent import MinEnt
from segda.methods.refign import Refign
from segda.methods.source_free import SourceFree
from segda.methods.source_only import SourceOnly
from segda.methods.vfm import VFMUDA
from segda.methods.vfm_plus import VFMUDAPlus

METHODS: dict[str, type[Method]] = {
    "source_only": SourceOnly,
    "minent": MinEnt,
    "advent": AdvEnt,
    "esl": ESL,
    "fda": FDA,
    "dacs": DACS,
    "daformer": DAFormer,
    "ebda": EBDA,
    "mic": MIC,
    "ease": EASE,
    "refign": Refign,
    "bdl": BDL,
    "cyclegan": CycleGAN,
    "dannet": DANNet,
    "mgcda": MGCDA,
    "vfm": VFMUDA,
    "vfm_plus": VFMUDAPlus,
    "source_free": SourceFree,
}
