"""One annotated image made by hand: two dogs, a door and a line of text on 100 × 80 pixels."""

from florence_lite.data.annotation import Annotation, ObjectAnnotation, Question, ReferringExpression, TextLine

SIZE = (100, 80)


def rectangle(x0: float, y0: float, x1: float, y1: float):
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


LEFT_DOG = ObjectAnnotation("dog", (5.0, 10.0, 35.0, 40.0), (rectangle(5, 10, 35, 40),), "a dog on the left")
RIGHT_DOG = ObjectAnnotation("dog", (60.0, 8.0, 92.0, 44.0), (rectangle(60, 8, 92, 44),), "a dog on the right")
DOOR = ObjectAnnotation(  # with a hole
    "door", (20.0, 50.0, 50.0, 78.0), (rectangle(20, 50, 50, 78), rectangle(30, 58, 40, 70)), "a door with a window"
)
STOP = TextLine("STOP", (62.0, 52.0, 98.0, 50.0, 99.0, 66.0, 63.0, 68.0))
ANNOTATED = Annotation(
    SIZE,
    objects=(LEFT_DOG, RIGHT_DOG, DOOR),
    lines=(STOP, TextLine("5 miles", (-4.0, 70.0, 40.0, 70.0, 40.0, 84.0, -4.0, 84.0))),
    captions=("a door and a dog", "a door, a dog and a dog", "There is a door. There are two dogs."),
    expressions=(
        ReferringExpression("the door", (2,)),
        ReferringExpression("all dogs", (0, 1)),
        ReferringExpression("the cat"),
        ReferringExpression("everything", (0, 1, 2)),
    ),
    questions=(Question("is there a door?", "yes"), Question("how many dogs?", "2")),
)
