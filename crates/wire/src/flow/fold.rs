//! Flows that are too many to report one by one go into sums.

use crate::flow::aggregate::Key;
use crate::flow::one::Flow;
use crate::flow::table::{FlowSink, FlowTable};
use crate::packet::Moment;
use crate::view::{End, Phase};

impl FlowTable {
    /// Counts a flow that nobody heard of together with others.
    pub(super) fn fold(&mut self, flow: &Flow, at: Moment, sink: &mut dyn FlowSink) {
        let view = flow.view(None, &self.names);
        let id = self.config.numbering.after(self.totals.flows);
        let (key, is_new) = self.aggregates.place(&view, id);
        self.totals.flows += u64::from(is_new);
        if let Some(sum) = self.aggregates.fold(key, &view)
            && !sum.opened
        {
            sum.opened = true;
            sum.reported_us = at.mono_us;
            sink.flow(Phase::Open, at, &sum.view(None));
            self.aggregates.next_us.get_or_insert(at.mono_us);
        }
    }

    /// Reports sums that grew and closes those that no longer do.
    pub(super) fn tick_aggregates(&mut self, now: Moment, sink: &mut dyn FlowSink) {
        let next_us = self.aggregates.next_us;
        if next_us.is_none_or(|next_us| next_us > now.mono_us) {
            return;
        }
        let (idle_us, interval_us) = (self.config.other_idle_us, self.config.update_interval_us);
        let mut next_us = u64::MAX;
        for key in self.aggregates.keys() {
            let Some(sum) = self.aggregates.get_mut(key) else {
                continue;
            };
            if sum.last_us().saturating_add(idle_us) <= now.mono_us {
                self.close_sum(key, End::Idle, now, sink);
                continue;
            }
            if sum.reported_us.saturating_add(interval_us) <= now.mono_us {
                if sum.last_us() > sum.reported_us {
                    sink.flow(Phase::Update, now, &sum.view(None));
                }
                sum.reported_us = now.mono_us;
            }
            let due_us = sum.reported_us.saturating_add(interval_us);
            next_us = next_us
                .min(due_us)
                .min(sum.last_us().saturating_add(idle_us));
        }
        self.aggregates.next_us =
            (next_us < u64::MAX).then(|| next_us.max(now.mono_us.saturating_add(1)));
    }

    pub(super) fn close_sum(&mut self, key: Key, end: End, at: Moment, sink: &mut dyn FlowSink) {
        if let Some(sum) = self.aggregates.get_mut(key) {
            sink.flow(Phase::Close, at, &sum.view(Some(end)));
        }
        self.aggregates.remove(key);
    }
}
