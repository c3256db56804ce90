"""Rows from GObjaverse's files: joins, categories, and the real samples."""

import json
from pathlib import Path
from typing import Any

import pytest

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.gobjaverse import Built, build, read_captions

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "gobjaverse_index_sample"


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    return {
        "index_files": [write(tmp_path / "gobjaverse_280k.json", ["10/5", "2/30", "2/4", "7/7", "8/8"])],
        "views": "s3://bucket/{dict}/{inst}.tar",
        "objaverse_map": write(
            tmp_path / "map.json",
            {"10/5": "000-001/aa.glb", "2/30": "000-002/bb.glb", "2/4": "000-003/cc.glb", "8/8": "000-004/dd.glb"},
        ),
        "category_file": write(
            tmp_path / "category_annotation.json",
            [
                {"object_index": "aa.glb", "label": "Food"},
                {"object_index": "bb.glb", "label": "Poor-quality"},
                {"object_index": "cc.glb", "label": "Animals"},
                {"object_index": "dd.glb", "label": "Plants"},
            ],
        ),
        "caption_files": [write(tmp_path / "text_captions_cap3d.json", {"10/5": "a pear", "2/4": "a cat"})],
    }


def test_join_over_index_map_labels_and_captions(files: dict[str, Any]) -> None:
    built: Built = build(**files, license="ODC-By-1.0")
    assert [row.uid for row in built.rows] == ["2_4", "8_8", "10_5"]  # in the order of the numbers
    pear = built.rows[2]
    assert pear.views == "s3://bucket/10/5.tar"
    assert (pear.category, pear.caption, pear.caption_source) == ("Food", "a pear", "Cap3D")
    assert (pear.source_id, pear.license, pear.format) == ("objaverse/aa", "ODC-By-1.0", "gobjaverse")
    assert (built.rows[1].caption, built.rows[1].caption_source) == ("", "")
    assert built.left_out == {"category Poor-quality": 1, "no category": 1}


def test_chosen_categories_all_and_captioned_only(files: dict[str, Any]) -> None:
    assert [row.uid for row in build(**files, categories=["Poor-quality"]).rows] == ["2_30"]
    everything = build(**files, categories=None).rows
    assert [row.uid for row in everything] == ["2_4", "2_30", "7_7", "8_8", "10_5"]
    assert (everything[2].category, everything[2].source_id) == ("", "gobjaverse/7/7")
    captioned = build(**files, drop_uncaptioned=True)
    assert [row.uid for row in captioned.rows] == ["2_4", "10_5"]
    assert captioned.left_out["no caption"] == 1


def test_category_from_the_name_of_an_index_file(tmp_path: Path) -> None:
    food = write(tmp_path / "gobjaverse_280k_Food.json", ["1/1"])
    poor = write(tmp_path / "gobjaverse_280k_Poor-quality.json", ["1/2"])
    built = build([food, poor], "/data/{index}")
    assert [(row.uid, row.category, row.views) for row in built.rows] == [("1_1", "Food", "/data/1/1")]


def test_captions_from_csv_come_by_objaverse_uid_and_the_first_file_wins(
    files: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "cap3d.csv").write_text('aa,"a pear, green"\ndd,"a ""tall"" fern"\n')
    files["caption_files"].append(tmp_path / "cap3d.csv")
    captions = {row.uid: row.caption for row in build(**files).rows}
    assert captions == {"2_4": "a cat", "8_8": 'a "tall" fern', "10_5": "a pear"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": "/data"}, "all objects have the same renders"),
        ({"views": "/data/{index}/{uid}"}, r"unknown \{uid\}"),
        ({"views": "https://host/{index}.tar"}, "only paths and s3://"),
        ({"categories": ["Vehicles"]}, "unknown categories Vehicles"),
        ({"category_file": None}, "categories are not known"),
        ({"objaverse_map": None}, "keyed by Objaverse uid"),
        ({"categories": ["Electronics"]}, "no object is left"),
        ({"index_files": []}, "index is empty"),
        ({"index_files": [Path("absent.json")]}, "absent.json: cannot be read"),
    ],
)
def test_faults_of_the_request(files: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        build(**files | change)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("index_files", '{"1/2": 3}', "expected a list"),
        ("index_files", '["1/2/3"]', "not an index"),
        ("index_files", '["../x"]', "not an index"),
        ("index_files", "[", "invalid JSON"),
        ("category_file", '[{"object_index": "aa.glb"}]', "entry 0 has no object_index and label"),
        ("category_file", '[{"object_index": "aa.glb", "label": "Cars"}]', "unknown label 'Cars'"),
        ("category_file", '[{"object_index": 5, "label": "Food"}]', "object_index is 5"),
        ("category_file", '[{"object_index": "aa.glb", "label": ["Food"]}]', "unknown label"),
        ("category_file", "{}", "expected a list"),
        ("caption_files", '{"1/2": "a", "1/2": "b"}', "the key '1/2' occurs twice"),
        ("caption_files", '{"": "a"}', "a caption without a key"),
        ("objaverse_map", '{"1/2": null}', "text values"),
        ("caption_files", '["x"]', "expected a JSON object of captions"),
    ],
)
def test_faults_of_the_files(files: dict[str, Any], name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match=f"bad.json.*{message}"):
        build(**files | {name: [path] if name.endswith("s") else path})


def test_unquoted_commas_in_a_csv_are_faults_with_lines(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("a,fine\nb,not, fine\n")
    with pytest.raises(ManifestError, match=r"c\.csv:2: expected uid,caption, got 3"):
        read_captions(tmp_path / "c.csv")


@pytest.mark.parametrize("name", ["c.csv", "C.CSV"])
def test_a_byte_order_mark_is_no_part_of_a_key(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b'\xef\xbb\xbfa,"one, two"\n\nb,three\na,"one, two"\n')
    assert read_captions(tmp_path / name) == {"a": "one, two", "b": "three"}


def test_second_captions_and_empty_keys_are_faults_with_lines(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text('a,"over\ntwo lines"\na,other\n," "\n"",x\n')
    with pytest.raises(ManifestError) as caught:
        read_captions(tmp_path / "c.csv")
    assert [fault.partition(".csv:")[2] for fault in caught.value.faults] == [
        "3: another caption of 'a'; remove one",
        "4: a caption without a key",
        "5: a caption without a key",
    ]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="shared sample data is absent")
def test_real_index_and_both_real_caption_files_agree() -> None:
    def rows(captions: str) -> Any:
        return build(
            [SAMPLE / "gobjaverse_280k.sample.json"],
            "/data/{index}",
            objaverse_map=SAMPLE / "gobjaverse_280k_index_to_objaverse.sample.json",
            caption_files=[SAMPLE / captions],
            categories=None,
        ).rows

    by_index, by_uid = rows("text_captions_cap3d.sample.json"), rows("Cap3D_automated_Objaverse.sample.csv")
    assert len(by_index) == 30
    assert all(row.caption for row in by_index)
    assert by_index == by_uid
    assert by_index[0].uid == "0_10010"
    assert by_index[0].source_id == "objaverse/000a00944e294f7a94f95d420fdd45eb"
