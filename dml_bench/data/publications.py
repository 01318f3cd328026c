"""What is known of published data sets before they are on this machine: size, parts, licence,
citation, where they come from, and by which digests they are recognised."""

from dataclasses import dataclass

__all__ = ["PUBLICATIONS", "Archive", "Publication", "published_as"]

NO_LICENCE = "none is stated with the images, which belong to their photographers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """A file that is downloaded."""

    file: str
    """Its name on this machine."""
    url: str
    digest: str = ""
    """`md5:` or `sha256:` and the digest in hexadecimal. Empty where the publisher packs it anew
    for each download, so that only its content can be known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A published data set."""

    title: str
    folder: str
    """The folder that fetching makes."""
    num_images: int
    num_classes: int
    num_coarse_classes: int = 0
    download_bytes: int = 0
    """Of all archives together; 0 where there is no direct download."""
    parts: str
    """How the publisher divides it."""
    divide_by: tuple[str, ...] = ()
    """Settings by which no photo of a query's own session is in the gallery, where a random split
    puts them there."""
    licence: str
    citation: str
    page: str
    version: str = ""
    """The record or commit that the archives are of."""
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    """The files that a person downloads where there is no direct download."""
    fingerprint: str = ""
    """`Dataset.fingerprint` of the published images and classes; empty where no copy was at
    hand to compute it."""
    split_fingerprint: str = ""
    """`Split.fingerprint` of the publisher's own parts, likewise."""


CARS_COMMIT = "2ac6920297f51277ac4e24afd231c46d35077831"
CARS_CITATION = (
    "Krause, Stark, Deng, Fei-Fei: 3D object representations for fine-grained categorization. 3dRR"
    " workshop at ICCV, 2013"
)
FLOWERS_COMMIT = "c4503f1429dc3af4deec24cf69da4ba6a76bea40"
GROCERY_COMMIT = "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc"
OMNIGLOT_COMMIT = "057f034baf2ecb8530bc5710e5a23584d2a519cc"
OMNIGLOT_FILES = f"https://raw.githubusercontent.com/brendenlake/omniglot/{OMNIGLOT_COMMIT}/python"

PUBLICATIONS = {
    "cub": Publication(
        title="Caltech-UCSD Birds-200-2011",
        folder="CUB_200_2011",
        num_images=11788,
        num_classes=200,
        download_bytes=1_150_585_339,
        parts="train 5,994, test 5,794; each class is in both",
        licence=NO_LICENCE,
        citation=(
            "Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 dataset."
            " CNS-TR-2011-001, California Institute of Technology, 2011"
        ),
        page="https://data.caltech.edu/records/65de6-vp158",
        version="CaltechDATA record 65de6-vp158, doi:10.22002/D1.20098",
        archives=(
            Archive(
                file="CUB_200_2011.tgz",
                url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                digest="md5:97eceeb196236b17998738112f37df78",
            ),
        ),
    ),
    "cars196": Publication(
        title="Stanford Cars",
        folder="cars196",
        num_images=16185,
        num_classes=196,
        parts="train 8,144, test 8,041; each class is in both",
        licence=NO_LICENCE,
        citation=CARS_CITATION,
        page="https://github.com/pytorch/vision/issues/7545 (the page at Stanford is gone)",
        by_hand="car_ims.tgz and cars_annos.mat",
    ),
    "cars196_train": Publication(
        title="Stanford Cars, the training photos, each cut to the box of its car",
        folder="cars196_train",
        num_images=8144,
        num_classes=196,
        download_bytes=294_600_000,
        parts="none; these are the training photos of Stanford Cars",
        licence=NO_LICENCE,
        citation=CARS_CITATION,
        page="https://github.com/fmejbah/car_dataset1 (a copy by somebody else)",
        version=f"commit {CARS_COMMIT}",
        archives=(
            Archive(
                file=f"car_dataset1-{CARS_COMMIT[:7]}.tar.gz",
                url=f"https://github.com/fmejbah/car_dataset1/archive/{CARS_COMMIT}.tar.gz",
            ),
        ),
        fingerprint="e347b100e19b573b1026478ba11f9a1dce18a11a738ce12ff5429c978f2cc3a3",
    ),
    "flowers102_part": Publication(
        title="Oxford 102 Flowers, a part: what is left of the training photos of another division",
        folder="flowers102_part",
        num_images=5543,
        num_classes=89,
        download_bytes=239_600_000,
        parts="none; all of Oxford 102 Flowers are 8,189 photos of 102 flowers",
        licence=NO_LICENCE,
        citation=(
            "Nilsback, Zisserman: Automated flower classification over a large number of classes."
            " ICVGIP, 2008"
        ),
        page="https://github.com/kibru9399/Image-classifier (a copy by somebody else)",
        version=f"commit {FLOWERS_COMMIT}",
        archives=(
            Archive(
                file=f"Image-classifier-{FLOWERS_COMMIT[:7]}.tar.gz",
                url=(
                    f"https://github.com/kibru9399/Image-classifier/archive/{FLOWERS_COMMIT}.tar.gz"
                ),
            ),
        ),
        fingerprint="6ff3424c0500680dbdba88d243b44ec9ce8956ae677e07e035eea0f40c54aecd",
    ),
    "sop": Publication(
        title="Stanford Online Products",
        folder="Stanford_Online_Products",
        num_images=120053,
        num_classes=22634,
        num_coarse_classes=12,
        parts="train 59,551, test 60,502; no class is in both",
        licence=NO_LICENCE,
        citation=(
            "Song, Xiang, Jegelka, Savarese: Deep metric learning via lifted structured feature"
            " embedding. CVPR, 2016"
        ),
        page="https://cvgl.stanford.edu/projects/lifted_struct",
        by_hand="Stanford_Online_Products.zip",
    ),
    "inshop": Publication(
        title="DeepFashion In-Shop Clothes Retrieval",
        folder="In-shop Clothes Retrieval Benchmark",
        num_images=52712,
        num_classes=7982,
        parts="train 25,882, query 14,218, gallery 12,612; no class is in train and the others",
        licence="non-commercial research, by agreement with the publisher",
        citation=(
            "Liu, Luo, Qiu, Wang, Tang: DeepFashion: powering robust clothes recognition and"
            " retrieval with rich annotations. CVPR, 2016"
        ),
        page="https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        by_hand="img.zip and list_eval_partition.txt",
    ),
    "grocery": Publication(
        title="Grocery Store Dataset",
        folder="GroceryStoreDataset",
        num_images=5421,
        num_classes=81,
        num_coarse_classes=43,
        download_bytes=119_700_000,
        parts="train 2,640, valid 296, test 2,485, of other shopping trips; 81 studio photos",
        divide_by=("data.split=given",),
        licence="MIT, the images included",
        citation=(
            "Klasson, Zhang, Kjellström: A hierarchical grocery store image dataset with visual"
            " and semantic labels. WACV, 2019, arXiv:1901.00711"
        ),
        page="https://github.com/marcusklasson/GroceryStoreDataset",
        version=f"commit {GROCERY_COMMIT}",
        archives=(
            Archive(
                file=f"GroceryStoreDataset-{GROCERY_COMMIT[:7]}.tar.gz",
                url=(
                    "https://github.com/marcusklasson/GroceryStoreDataset/archive/"
                    f"{GROCERY_COMMIT}.tar.gz"
                ),
            ),
        ),
        fingerprint="9410ae3c1b1c85cb169f74bc31b6849ad215507b1f0edcae652375d8f2419992",
        split_fingerprint="7fcdb53135574f99c0bbfec6cf5bd9a67854de9fe079e8bb06e94f4456f16f20",
    ),
    "omniglot": Publication(
        title="Omniglot, background sets small1 and small2",
        folder="omniglot",
        num_images=4840,
        num_classes=242,
        num_coarse_classes=8,
        download_bytes=2_899_939,
        parts="none; the whole of Omniglot has 1,623 characters and divides them by alphabet",
        divide_by=("data.split=grouped", "data.group=drawer"),
        licence="MIT",
        citation=(
            "Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic"
            " program induction. Science 350, 2015"
        ),
        page="https://github.com/brendenlake/omniglot",
        version=f"commit {OMNIGLOT_COMMIT}",
        archives=(
            Archive(
                file="images_background_small1.zip",
                url=f"{OMNIGLOT_FILES}/images_background_small1.zip",
                digest="sha256:f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
            ),
            Archive(
                file="images_background_small2.zip",
                url=f"{OMNIGLOT_FILES}/images_background_small2.zip",
                digest="sha256:3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
            ),
        ),
        fingerprint="df362f960ba353085104666946ab575c4a780a5bb53fa04c7a84f516365bc65b",
    ),
}
"""By the name of the data set."""


def published_as(name: str, fingerprint: str) -> Publication | None:
    """What was published under a name, where the images are those; None where they are others, or
    where no fingerprint is known."""
    publication = PUBLICATIONS.get(name)
    return publication if publication and publication.fingerprint == fingerprint else None
