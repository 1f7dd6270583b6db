"""The page in a real browser: filters, sorting, keys, hostile names, no error, no network."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from kagflow.report import page
from kagflow.report.facts import Limits

HOSTILE = 'x"><img src=x onerror=window.hacked=1>.png'
CLASSES = ("first", "<script>window.hacked=1<|script>".replace("|", "/"), "$x_3$&amp;'\"")
EVIL = "</script><script>window.hacked=1</script>"
HEAD = page.Head("A & B <i>", "slug", "ensemble default", "some day", (("profile", EVIL),))


@pytest.fixture(scope="module")
def written(tmp_path_factory, build_in):
    """Write a page of everything, with names that would break out if they could."""
    root = tmp_path_factory.mktemp("report")
    names = [HOSTILE, *(f"img{number:02}.png" for number in range(27))]
    house = build_in(root, classes=CLASSES, names=names)
    house.run("one").run("two", noise=0.4).run("gate", predicts="label")
    house.ensemble("one", "two", "gate")
    facts = house.collect()
    value = json.loads((root / "ensembles" / "tiles" / "default.json").read_text())
    path = root / "out" / "page.html"
    path.parent.mkdir()
    path.write_text(page.render(HEAD, facts, value))
    return path, facts


@pytest.fixture
def opened(browser, written):
    """Open the page; afterwards nothing was complained of, and nothing was asked of a network."""
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    said, asked = [], []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(written[0].as_uri())
    yield view
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    view.close()


def visible(view):
    return view.eval_on_selector_all(
        ".card", "all => all.filter(one => !one.hidden).map(one => one.dataset.id)"
    )


def wait(view, expression):
    """Wait until an expression is true; the page's own rules forbid Playwright's way to wait."""
    for _ in range(250):
        if view.evaluate(expression):
            return
        view.wait_for_timeout(20)
    raise AssertionError(expression)


def pick(view, name, value):
    view.select_option(f"#filters [name={name}]", value=value)


def test_names_are_text_wherever_they_stand(opened, written):
    assert opened.evaluate("window.hacked") is None
    assert opened.inner_text("h1") == "A & B <i>"
    names = opened.eval_on_selector_all(".card h3", "all => all.map(one => one.textContent)")
    assert HOSTILE in names
    assert CLASSES[1] in opened.inner_text("#score")
    pick(opened, "class", "1")
    opened.click(".card:not([hidden]) .frame")
    assert opened.evaluate("window.hacked") is None
    assert EVIL in opened.inner_text(".origin")
    assert len(opened.query_selector_all("script")) == 1


def test_filters_show_what_fits(opened, written):
    cards = {card.image_id: card for card in written[1].cards}
    assert set(visible(opened)) == set(cards)
    pairs = Counter((unit.kind, unit.at) for card in cards.values() for unit in card.units)
    (kind, at), many = next(
        (pair, count)
        for pair, count in pairs.most_common()
        if pair[0] in ("missed", "hallucinated")
    )
    pick(opened, "kind", kind)
    pick(opened, "class", str(at))
    fits = {name: [u for u in c.units if (u.kind, u.at) == (kind, at)] for name, c in cards.items()}
    wanted = {name for name, units in fits.items() if units}
    assert 0 < len(wanted) == many < len(cards)
    assert set(visible(opened)) == wanted
    cost = sum(unit.loss for units in fits.values() for unit in units)
    assert f"{many} of {len(cards)} images; they cost {cost:.5f}" in opened.inner_text("#count")
    pick(opened, "kind", "")
    pick(opened, "class", "")
    pick(opened, "fold", "1")
    assert set(visible(opened)) == {n for n, c in cards.items() if c.fold == 1}
    pick(opened, "cluster", "3")
    assert set(visible(opened)) == {n for n, c in cards.items() if c.fold == 1 and c.cluster == 3}
    opened.click("#filters [type=reset]")
    wait(opened, f"document.querySelectorAll('.card:not([hidden])').length == {len(cards)}")
    pick(opened, "why", "median")
    assert set(visible(opened)) == {n for n, c in cards.items() if "median" in c.why}
    opened.fill("[name=search]", "no such name")
    assert visible(opened) == []
    opened.click("#clear")
    assert set(visible(opened)) == set(cards)


def test_sorting_is_by_cost_of_what_is_filtered(opened, written):
    cards = {card.image_id: card for card in written[1].cards}
    assert visible(opened) == sorted(cards, key=lambda n: (-cards[n].loss, n))
    pick(opened, "class", "1")

    def cost(name):
        return sum(unit.loss for unit in cards[name].units if unit.at == 1)

    losses = [cost(name) for name in visible(opened)]
    assert losses == sorted(losses, reverse=True)
    pick(opened, "class", "")
    pick(opened, "sort", "id")
    assert visible(opened) == sorted(cards)
    pick(opened, "sort", "area")
    areas = [sum(unit.true for unit in cards[name].units) for name in visible(opened)]
    assert areas == sorted(areas, reverse=True)
    pick(opened, "sort", "score")
    scores = [min((u.score for u in cards[n].units), default=1) for n in visible(opened)]
    assert scores == sorted(scores)


def focused(view):
    return view.evaluate(
        "(document.activeElement.closest('.card') || {dataset: {id: null}}).dataset.id"
    )


def test_the_keyboard_reaches_everything(opened):
    order = visible(opened)
    opened.keyboard.press("ArrowRight")
    assert focused(opened) == order[0]
    opened.keyboard.press("ArrowRight")
    assert focused(opened) == order[1]
    opened.keyboard.press("ArrowDown")
    assert order.index(focused(opened)) > 2
    opened.keyboard.press("ArrowUp")
    assert focused(opened) == order[1]
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.getElementById('large').open")
    assert order[1] in opened.inner_text("#about")
    opened.keyboard.press("ArrowRight")
    assert f"3 of {len(order)}" in opened.inner_text("#place")
    opened.keyboard.press("ArrowLeft")
    opened.keyboard.press("ArrowLeft")
    opened.keyboard.press("ArrowLeft")
    assert f"1 of {len(order)}" in opened.inner_text("#place")
    opened.keyboard.press("Escape")
    assert not opened.evaluate("document.getElementById('large').open")
    assert focused(opened) == order[0]
    opened.keyboard.press("/")
    opened.keyboard.type("img0t")
    assert opened.input_value("[name=search]") == "img0t"
    assert visible(opened) == []
    opened.keyboard.press("Escape")
    assert visible(opened) == order
    assert opened.is_checked("[name=truth]")


def test_every_filter_is_reached_by_tab(opened):
    opened.focus("#filters [name=why]")
    reached = []
    for _ in range(10):
        reached.append(
            opened.evaluate("document.activeElement.name || document.activeElement.type")
        )
        opened.keyboard.press("Tab")
    assert reached == [
        "why", "class", "kind", "fold", "cluster", "sort", "search", "truth", "said", "reset",
    ]  # fmt: skip
    assert opened.evaluate("document.activeElement.className") == "frame"


def test_outlines_can_be_hidden(opened):
    drawn = "getComputedStyle(document.querySelector('.frame g.{}')).display"
    assert opened.evaluate(drawn.format("true")) == "inline"
    opened.keyboard.press("t")
    opened.keyboard.press("p")
    assert opened.evaluate(drawn.format("true")) == "none"
    assert opened.evaluate(drawn.format("said")) == "none"
    opened.keyboard.press("t")
    assert opened.evaluate(drawn.format("true")) == "inline"


def test_pictures_come_when_they_are_near(opened):
    loaded = "[...document.querySelectorAll('.card img')].filter(one => one.src).length"
    at_first = opened.evaluate(loaded)
    assert at_first == 0
    opened.evaluate("document.getElementById('gallery').scrollIntoView()")
    wait(opened, "document.querySelector('.card img').naturalWidth > 0")
    shape = opened.evaluate(
        "(() => { const one = document.querySelector('.card .frame');"
        "const image = one.querySelector('img');"
        "return one.clientWidth / one.clientHeight - image.width / image.height })()"
    )
    assert abs(shape) < 0.05


def test_doubted_labels_open_their_image(opened, written):
    links = opened.query_selector_all("#doubts [data-open]")
    assert links
    name = links[0].inner_text()
    links[0].click()
    assert name in opened.inner_text("#about")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser, written, width):
    for scheme in ("light", "dark"):
        view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        view.goto(written[0].as_uri())
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        contrast = view.evaluate(CONTRAST)
        assert min(contrast.values()) >= 4.5, contrast
        view.close()


# Contrast of text against the nearest ground that is painted (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const rgb = parse(getComputedStyle(node).backgroundColor);
      if (rgb.length < 4 || rgb[3] > 0) return rgb.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const selector of [
    "p", ".note", "th", "td", ".link", "nav a", "small", "figcaption", "summary", ".facts p",
    ".facts .missed", ".facts .good", "#filters label", "select", ".chart text",
  ]) {
    for (const node of document.querySelectorAll(selector)) {
      const style = getComputedStyle(node), chart = node.closest("svg");
      const a = light(parse(chart ? style.fill : style.color).slice(0, 3)), b = light(ground(node));
      const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      found[selector] = Math.min(found[selector] ?? 99, ratio);
    }
  }
  return found;
}"""


def test_every_picture_chart_and_control_has_a_name(opened):
    assert opened.evaluate("[...document.querySelectorAll('img')].every(one => one.alt.length > 5)")
    assert opened.evaluate(
        "[...document.querySelectorAll('[role=img]')].every(one => one.getAttribute('aria-label'))"
    )
    assert opened.evaluate(
        "[...document.querySelectorAll('select, input')].every(one => one.closest('label'))"
    )
    doubled = opened.evaluate(
        "(() => { const all = [...document.querySelectorAll('[id]')].map(one => one.id);"
        "return all.filter((one, at) => all.indexOf(one) != at) })()"
    )
    assert doubled == []


def test_equal_facts_give_equal_bytes(written):
    path, facts = written
    value = json.loads((path.parents[1] / "ensembles" / "tiles" / "default.json").read_text())
    assert page.render(HEAD, facts, value) == path.read_text()
    other = page.Head(HEAD.title, HEAD.slug, HEAD.judge, "another day", HEAD.origin)
    changed = page.render(other, facts, value)
    assert changed.replace("another day", "some day") == path.read_text()


def test_the_file_stands_alone(written):
    text = re.sub(r'"data:image/webp[^"]*"', '""', written[0].read_text())
    assert not re.search(r'(?:src|href)="(?!#|data:)[^"]+"', text)
    assert not re.search(r"@import|url\((?!#)", text)


@pytest.mark.parametrize("runs", [(), ("one",)])
def test_a_page_of_little_says_what_is_missing(browser, house, tmp_path, runs):
    for run in runs:
        house.run(run, folds=(0,))
    facts = house.collect(limits=Limits(images=5), history=False)
    path = tmp_path / "little.html"
    path.write_text(page.render(page.Head("t", "s", "no ensemble yet", "now"), facts))
    view = browser.new_page()
    said = []
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.goto(path.as_uri())
    told = " ".join(one.inner_text() for one in view.query_selector_all(".missing"))
    assert "kagflow submit" in told
    assert ("kagflow train fold=0" in told) or runs
    assert len(view.query_selector_all(".card")) == (5 if runs else 0)
    assert said == []
    view.close()
