//! Makes a failing program smaller. Pure: whether a program fails is asked of the caller.

use anyhow::Result;

/// Removes items as long as what is left `fails`: halves first, single ones last.
pub fn shrink<T: Clone>(
    items: &[T],
    mut fails: impl FnMut(&[T]) -> Result<bool>,
) -> Result<Vec<T>> {
    let mut left = items.to_vec();
    let mut size = left.len().div_ceil(2);
    while size > 0 {
        let before = left.len();
        let mut start = 0;
        while start < left.len() {
            let end = left.len().min(start + size);
            let without = [&left[..start], &left[end..]].concat();
            match fails(&without)? {
                true => left = without,
                false => start = end,
            }
        }
        // A single item may be removable once another one is gone.
        if size > 1 || left.len() == before {
            size /= 2;
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_failure_takes_is_left() {
        let items: Vec<u32> = (0..100).collect();
        let mut asked = 0;
        let left = shrink(&items, |items| {
            asked += 1;
            Ok([13, 14, 77].iter().all(|needed| items.contains(needed)))
        });
        assert_eq!(left.unwrap(), [13, 14, 77]);
        assert!(asked < 100, "{asked}");
    }

    #[test]
    fn an_item_that_could_only_go_after_another_goes() {
        // 3 fails alone; 5 must not be without 6.
        let left = shrink(&[3, 6, 5], |items| {
            Ok(items.contains(&3) && (items.contains(&6) || !items.contains(&5)))
        });
        assert_eq!(left.unwrap(), [3]);
    }
}
