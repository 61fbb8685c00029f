"""The nodes' panels beside ComfyUI's canvas, with the browser's own mouse events, in both renderers."""

from tools.browser import choose

from .pages import NEEDS_BROWSER, panel, wait, words

pytestmark = NEEDS_BROWSER

PHOTOS, PRESET = ("DatasetLoader", "photo_view"), ("DreamBoothTrain", "preset_view")
"""A panel that has more than it can show, and one that is as high as its text."""
CANVAS = "const { ds } = window.app.canvas; return [ds.scale, ds.offset[0], ds.offset[1]]"


def filled(page, either_panel: tuple[str, str]):
    """The panel, with something in it."""
    if either_panel == PHOTOS:
        choose(page, "DatasetLoader", "folder", "plush")
        wait(page, lambda: "plush-4.jpg" in words(page, *PHOTOS), 60)
    else:
        choose(page, "DreamBoothTrain", "steps", 77)
        wait(page, lambda: "77" in words(page, *PRESET), 60)
    return panel(page, *either_panel)


def look_at(page, element, zoom: float = 1) -> None:
    """Let the middle of a panel lie in the middle of the canvas."""
    for _ in range(2):  # a node that comes into sight may be laid out then
        page.execute_script(
            """
            const [element, zoom] = arguments, { ds, canvas } = window.app.canvas
            ds.scale = zoom
            const [box, view] = [element.getBoundingClientRect(), canvas.getBoundingClientRect()]
            ds.offset[0] += (view.left + view.width / 2 - box.left - box.width / 2) / zoom
            ds.offset[1] += (view.top + view.height / 2 - box.top - box.height / 2) / zoom
            window.app.canvas.setDirty(true, true)
            """,
            element,
            zoom,
        )
        wait(page, lambda: page.execute_async_script("const [done] = arguments; requestAnimationFrame(() => done(true))"), 30)


def box_of(page, element) -> tuple[float, float, float, float]:
    script = "const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
    return tuple(page.execute_script(script, element))


def mouse(page, kind: str, x: float, y: float, **more) -> None:
    page.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})


def drag(page, start: tuple[float, float], by: tuple[float, float], button: str) -> None:
    (x, y), held = start, {"left": 1, "middle": 4}[button]
    mouse(page, "mouseMoved", x, y)
    mouse(page, "mousePressed", x, y, button=button, buttons=held, clickCount=1)
    for part in (0.25, 0.5, 0.75, 1):
        mouse(page, "mouseMoved", x + part * by[0], y + part * by[1], button=button, buttons=held)
    mouse(page, "mouseReleased", x + by[0], y + by[1], button=button, clickCount=1)


def is_on_top(page, element, x: float, y: float) -> bool:
    return page.execute_script(
        "return arguments[0].contains(document.elementFromPoint(arguments[1], arguments[2]))", element, x, y
    )


def test_the_wheel_and_a_middle_drag_over_a_panel_are_the_canvas_s(either):
    page = either
    for which in (PHOTOS, PRESET):
        element = filled(page, which)
        look_at(page, element)
        left, top, _, height = box_of(page, element)
        x, y = left + 12, top + min(8, height / 2)
        assert is_on_top(page, element, x, y), which
        before = page.execute_script(CANVAS)
        drag(page, (x, y), (60, 30), "middle")
        wait(page, lambda before=before: abs(page.execute_script(CANVAS)[1] - before[1] - 60) < 5, 10)
        assert abs(page.execute_script(CANVAS)[2] - before[2] - 30) < 5
        assert page.execute_script(CANVAS)[0] == before[0] == 1
    mouse(page, "mouseWheel", x + 60, y + 30, deltaX=0, deltaY=100)  # over the one that does not scroll
    wait(page, lambda: page.execute_script(CANVAS)[0] < 1, 10)


def test_the_wheel_scrolls_a_panel_that_has_more_than_it_shows(either):
    """Where nodes are elements of the page, once it was clicked, as ComfyUI's own boxes."""
    page = either
    element = filled(page, PHOTOS)
    look_at(page, element)
    left, top, width, height = box_of(page, element)
    assert page.execute_script("return arguments[0].scrollHeight > arguments[0].clientHeight", element)
    page.execute_script("arguments[0].focus()", element)
    mouse(page, "mouseWheel", left + width / 2, top + height / 2, deltaX=0, deltaY=40)
    wait(page, lambda: page.execute_script("return arguments[0].scrollTop", element) > 0, 10)
    assert page.execute_script(CANVAS)[0] == 1


def test_a_panel_is_there_when_the_canvas_is_zoomed_out(either):
    """ComfyUI hides its own boxes below 57 %."""
    page = either
    for which in (PHOTOS, PRESET):
        element = filled(page, which)
        look_at(page, element, 0.4)
        left, top, width, height = box_of(page, element)
        assert width > 100, which
        assert height > 5, which
        assert is_on_top(page, element, left + width / 2, top + height / 2), which
        assert abs(width / page.execute_script("return arguments[0].offsetWidth", element) - 0.4) < 0.02


def test_a_panel_grows_with_its_node(either):
    page = either
    element = filled(page, PHOTOS)
    look_at(page, element, 0.5)
    before = page.execute_script("return arguments[0].clientHeight", element)
    x, y = corner(page, "DatasetLoader")
    drag(page, (x, y), (0, 100), "left")
    wait(page, lambda: page.execute_script("return arguments[0].clientHeight", element) > before + 150, 10)


def corner(page, node_type: str) -> tuple[float, float]:
    """Where one takes a node to make it larger."""
    return tuple(
        page.execute_script(
            """
            const node = window.app.graph.nodes.find((n) => n.type === arguments[0]), { ds, canvas } = window.app.canvas
            const own = document.querySelector(`[data-node-id="${node.id}"]`)
            if (window.LiteGraph.vueNodesMode && own) {
              const box = own.getBoundingClientRect()
              return [box.right - 2, box.bottom - 2]
            }
            const view = canvas.getBoundingClientRect()
            const [x, y] = [node.pos[0] + node.size[0] - 4, node.pos[1] + node.size[1] - 4]
            return [view.left + (x + ds.offset[0]) * ds.scale, view.top + (y + ds.offset[1]) * ds.scale]
            """,
            node_type,
        )
    )
