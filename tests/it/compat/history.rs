//! Known history.
use chv_sandbox::compat::{self, Report};
use chv_sandbox::spec;
use std::path::Path;

#[test]
fn show() {
    let dir = std::env::var("DOCS").unwrap();
    let a = std::env::var("A").unwrap();
    let b = std::env::var("B").unwrap();
    let read =
        |n: &str| spec::read_import(&Path::new(&dir).join(n), "v53.0".parse().unwrap()).unwrap();
    let t = std::time::Instant::now();
    let (x, y) = (read(&a), read(&b));
    let t1 = t.elapsed();
    let f = compat::diff(&x, &y);
    println!("read {t1:?} diff {:?}", t.elapsed() - t1);
    let r = Report::new(a, b, f);
    for f in r.findings {
        let aff: Vec<_> = f.affects.into_iter().collect();
        println!(
            "{:?} {:?} {} {} | {} | {}",
            f.level,
            f.direction,
            f.id,
            f.path,
            f.message,
            aff.join(",")
        );
    }
}
