"""The report: one file, whatever texts and drives it is given."""

import base64
from html.parser import HTMLParser

import cv2
import numpy as np

from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.evaluation.metrics import measure
from janusvln_ros.evaluation.report import write_report
from janusvln_ros.evaluation.summary import error_line, result_line, summarize

NASTY = 'Go to <b>"the door"</b> & stop</svg><script>alert(1)</script>'


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.images, self.points = [], "", [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        if tag == "image":
            self.images.append(values["href"])
        if tag == "polyline":
            self.points.append(values["points"])

    def handle_data(self, data):
        self.text += data


def write(tmp_path, count, instruction="go", floor=None, success=False):
    point, goal = (0.0, 0.0, 0.0), (2.0, 0.0, 1.0)
    results, paths = [], []
    for number in range(count):
        episode = Episode(
            str(number),
            "1",
            "houses/h/h.glb",
            point,
            (0.0, 0.0, 0.0, 1.0),
            goal,
            3.0,
            instruction,
            (point, goal),
            2.2,
        )
        drive = Drive(
            positions=[[0, 0, 0], [0.25, 0, 0]],
            distances=[5.0, 0.5 if success else 4.0],
            actions=[0],
            collided=[False],
            status="stopped",
            calls=1,
            poses_changed=1,
        )
        options = {"given": instruction, "chose_stop": True, "reference_actions": (1, 0)}
        results.append(result_line(episode, drive, measure(drive), **options))
        paths.append([[0, 0, 0], [0.25, 0, 0]])
    results.append(error_line(episode, "OSError: <gone>", instruction))
    paths.append([])
    summary = {
        **summarize(results),
        "agent": "policy",
        "instructions": "normal",
        "checkpoint": None,
        "dataset": "houses",
        "split": "val_unseen",
    }
    summary["thresholds"] = {"success": 3.0, "near": 0.5}
    write_report(
        tmp_path / "report.html",
        summary,
        results,
        paths,
        [(point, goal)] * len(results),
        [floor] * len(results),
    )
    reader = Reader()
    reader.feed((tmp_path / "report.html").read_text())
    return reader


def test_texts_are_shown_as_texts_and_never_run(tmp_path):
    reader = write(tmp_path, 2, NASTY)
    assert "script" not in reader.tags and "b" in reader.tags
    assert NASTY in reader.text and "OSError: <gone>" in reader.text


def test_failures_are_drawn_on_the_part_of_the_map_around_them(tmp_path):
    navigable = np.zeros((200, 300), bool)
    navigable[40:160] = True
    reader = write(tmp_path, 2, floor=TopDownMap(navigable, (-5.0, -5.0), 0.05))
    assert len(reader.images) == 3
    picture = cv2.imdecode(
        np.frombuffer(base64.b64decode(reader.images[0].split(",")[1]), np.uint8), 0
    )
    # x from -1 to 3 and z from -1 to 2 m, at 5 cm; all of it navigable.
    assert picture.shape == (60, 80) and (picture == 255).all()
    assert reader.points[:2] == ["0.00,0.00 2.00,1.00", "0.00,0.00 0.25,0.00"]


def test_many_failures_are_thinned_out_and_it_says_so(tmp_path):
    reader = write(tmp_path, 100)
    assert reader.tags.count("circle") == 24 and "101, 24 shown" in reader.text


def test_run_without_failures_shows_successes(tmp_path):
    reader = write(tmp_path, 3, success=True)
    assert "within 3 m" in reader.text and "within 0.5 m" in reader.text
    assert "Successes: 3" in reader.text and "Failures: 1" in reader.text
