//! The charts, as SVG inside the page.

use super::markup::{Attribute, Markup};
use super::scale::{LogScale, linear_step, tick};
use crate::latency::{Distribution, StepReport, Time};

const WIDTH: f64 = 640.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 28.0;

/// The space for two rows of labels above the bars of a distribution.
const TOP: f64 = 40.0;
const BARS: f64 = 110.0;

/// The space for the labels below an axis.
const BOTTOM: f64 = 28.0;

/// The number of bars of a distribution; empty ones are not drawn.
const BINS: usize = 72;

/// One row of the steps of a reset.
const ROW: f64 = 24.0;
const NAMES: f64 = 150.0;
const VALUES: f64 = 120.0;

/// The longest name beside a row, in characters.
const LONGEST_NAME: usize = 20;

/// A chart of this height, with a title and a description for screen readers.
fn svg(
    markup: &mut Markup,
    height: f64,
    title: &str,
    description: &str,
    inside: impl FnOnce(&mut Markup),
) {
    let (title_id, description_id) = (markup.id(), markup.id());
    let labelled = format!("{title_id} {description_id}");
    let view = format!("0 0 {WIDTH} {height}");
    let attributes: [Attribute<'_>; 3] = [
        ("viewBox", &view),
        ("role", &"img"),
        ("aria-labelledby", &labelled),
    ];
    markup.element("svg", &attributes, |markup| {
        markup.text_element("title", &[("id", &title_id)], title);
        markup.text_element("desc", &[("id", &description_id)], description);
        inside(markup);
    });
}

fn line(markup: &mut Markup, class: &str, from: (f64, f64), to: (f64, f64)) {
    let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
    let attributes: [Attribute<'_>; 5] = [
        ("class", &class),
        ("x1", &x1),
        ("y1", &y1),
        ("x2", &x2),
        ("y2", &y2),
    ];
    markup.empty("line", &attributes);
}

fn rectangle(markup: &mut Markup, class: &str, at: (f64, f64), size: (f64, f64)) {
    let [x, y, width, height] = [at.0, at.1, size.0, size.1].map(number);
    let attributes: [Attribute<'_>; 5] = [
        ("class", &class),
        ("x", &x),
        ("y", &y),
        ("width", &width),
        ("height", &height),
    ];
    markup.empty("rect", &attributes);
}

fn label(markup: &mut Markup, class: &str, at: (f64, f64), anchor: &str, text: &str) {
    let [x, y] = [at.0, at.1].map(number);
    let attributes: [Attribute<'_>; 4] = [
        ("class", &class),
        ("x", &x),
        ("y", &y),
        ("text-anchor", &anchor),
    ];
    markup.text_element("text", &attributes, text);
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// The distribution of a step: bars over a logarithmic axis, with the median and the 99th percentile.
pub(super) fn distribution(markup: &mut Markup, name: &str, times: &Distribution) {
    let scale = LogScale::new(times.min, times.max, LEFT, WIDTH - LEFT - RIGHT);
    let floor = TOP + BARS;
    let bins = bins(times, &scale);
    let highest = bins.iter().copied().max().unwrap_or(0).max(1);
    let share = 100.0 * highest as f64 / times.count.max(1) as f64;
    let title = format!("Distribution of {name}");
    let description = format!(
        "{} samples from {} to {}: median {}, 99th percentile {}. The tallest bar has {share:.1} % of them.",
        times.count,
        Time(times.min as f64),
        Time(times.max as f64),
        Time(times.p50 as f64),
        Time(times.p99 as f64),
    );
    svg(markup, floor + BOTTOM, &title, &description, |markup| {
        for at in scale.ticks() {
            let x = scale.x(at);
            line(markup, "grid", (x, TOP), (x, floor));
            label(markup, "tick", (x, floor + 18.0), "middle", &tick(at));
        }
        label(
            markup,
            "tick",
            (LEFT - 6.0, TOP + 8.0),
            "end",
            &format!("{share:.0} %"),
        );
        label(markup, "tick", (LEFT - 6.0, floor), "end", "0 %");
        let width = (WIDTH - LEFT - RIGHT) / BINS as f64;
        for (bin, count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
            // The bar of a single sample must be visible, too.
            let height = (BARS * *count as f64 / highest as f64).max(1.5);
            let at = (LEFT + width * bin as f64 + 0.5, floor - height);
            rectangle(markup, "bar", at, (width - 1.0, height));
        }
        line(markup, "axis", (LEFT, floor), (WIDTH - RIGHT, floor));
        // The label of the median is left of its line, and that of the 99th percentile right of it, unless it would
        // leave the chart.
        for (row, class, word, time, is_left) in [
            (
                0.0,
                "median",
                "p50",
                times.p50,
                scale.share(times.p50 as f64) > 0.2,
            ),
            (
                1.0,
                "tail",
                "p99",
                times.p99,
                scale.share(times.p99 as f64) > 0.8,
            ),
        ] {
            let (x, y) = (scale.x(time as f64), 14.0 + 16.0 * row);
            line(markup, class, (x, y - 10.0), (x, floor));
            let text = format!("{word} {}", Time(time as f64));
            match is_left {
                true => label(markup, "mark", (x - 5.0, y), "end", &text),
                false => label(markup, "mark", (x + 5.0, y), "start", &text),
            }
        }
    });
}

/// The number of samples for each bar, from the buckets of the histogram.
fn bins(times: &Distribution, scale: &LogScale) -> Vec<u64> {
    let mut bins = vec![0_u64; BINS];
    for bucket in &times.histogram {
        let share = scale.share(bucket.up_to.min(times.max) as f64);
        let bin = ((share * BINS as f64) as usize).min(BINS - 1);
        bins[bin] = bins[bin].saturating_add(bucket.count);
    }
    bins
}

/// The steps of a reset by their means, one below the other. Each begins where the previous one ends.
pub(super) fn reset_steps(markup: &mut Markup, steps: &[StepReport]) {
    let whole: f64 = steps.iter().map(|step| step.times.mean.max(0.0)).sum();
    // A report may hold any number.
    let whole = if whole.is_finite() { whole } else { 0.0 };
    let width = WIDTH - NAMES - VALUES;
    let floor = 8.0 + ROW * steps.len() as f64;
    let x = |micros: f64| match whole > 0.0 {
        true => NAMES + width * (micros / whole).clamp(0.0, 1.0),
        false => NAMES,
    };
    let description = format!(
        "{} steps, together {} on average, in their order.",
        steps.len(),
        Time(whole)
    );
    let title = "Steps of a reset";
    svg(markup, floor + BOTTOM, title, &description, |markup| {
        let distance = linear_step(whole);
        let ticks = (0..=5).map(|at| f64::from(at) * distance);
        for at in ticks.take_while(|at| *at <= whole) {
            line(markup, "grid", (x(at), 4.0), (x(at), floor));
            label(markup, "tick", (x(at), floor + 18.0), "middle", &tick(at));
        }
        let mut began = 0.0;
        for (row, step) in steps.iter().enumerate() {
            let mean = step.times.mean.clamp(0.0, whole);
            let y = 8.0 + ROW * row as f64;
            let middle = y + ROW / 2.0 + 1.0;
            let name = shorten(&step.name);
            label(markup, "name", (NAMES - 8.0, middle), "end", &name);
            let length = (x(began + mean) - x(began)).max(1.5);
            rectangle(markup, "bar", (x(began), y + 3.0), (length, ROW - 9.0));
            let share = if whole > 0.0 {
                100.0 * mean / whole
            } else {
                0.0
            };
            let text = format!("{}, {share:.0} %", Time(mean));
            label(markup, "value", (WIDTH - 4.0, middle), "end", &text);
            began += mean;
        }
        line(markup, "axis", (NAMES, 4.0), (NAMES, floor));
    });
}

fn shorten(name: &str) -> String {
    match name.chars().count() > LONGEST_NAME {
        true => name.chars().take(LONGEST_NAME - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}
