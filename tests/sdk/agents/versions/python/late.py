counted = 0


def count():
    global counted
    counted += 1
    return counted
