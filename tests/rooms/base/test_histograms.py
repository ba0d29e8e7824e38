"""How values are distributed, in the format that Prometheus reads."""

from isthmus.base import metrics


def test_each_bucket_counts_all_values_that_are_at_most_as_large():
    registered = metrics.Metrics()
    sizes = registered.histogram("size_bytes", "Sizes.", "type", bounds=(1.0, 10.0))
    for value in (0.5, 1.0, 5.0, 100.0):
        sizes.observe(value, "a")

    assert registered.text().splitlines() == [
        "# HELP size_bytes Sizes.",
        "# TYPE size_bytes histogram",
        'size_bytes_bucket{type="a",le="1"} 2',
        'size_bytes_bucket{type="a",le="10"} 3',
        'size_bytes_bucket{type="a",le="+Inf"} 4',
        'size_bytes_sum{type="a"} 106.5',
        'size_bytes_count{type="a"} 4',
    ]


def test_without_labels_there_are_no_braces_but_for_the_bounds():
    registered = metrics.Metrics()
    registered.histogram("took_seconds", "Time.", bounds=(1.0,)).observe(2.0)

    assert registered.text().splitlines()[2:] == [
        'took_seconds_bucket{le="1"} 0',
        'took_seconds_bucket{le="+Inf"} 1',
        "took_seconds_sum 2",
        "took_seconds_count 1",
    ]


def test_moments_keep_all_their_digits():
    registered = metrics.Metrics()
    registered.gauge("ends_timestamp", "When.").set(1795000001.0)

    assert "ends_timestamp 1795000001\n" in registered.text()


def test_figures_that_nobody_keeps_are_counted_when_somebody_reads():
    registered = metrics.Metrics()
    pods = registered.gauge("pods_known", "Pods.")
    known = [1]
    registered.before_each(lambda: pods.set(len(known)))
    known.append(2)

    assert "pods_known 2\n" in registered.text()
