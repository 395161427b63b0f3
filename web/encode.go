package web

import (
	"encoding/hex"
	"strconv"
	"time"

	"workmanager/jobs"
	"workmanager/web/api"
)

// viewOf is what an outcome shows of its job.
func viewOf(j jobs.Job, d jobs.Durability) jobs.View {
	v := jobs.View{Job: j, Done: j.Start().Done, Durability: d}
	if j.Rank == jobs.Completed {
		v.Done = j.Iterations
	}
	return v
}

// jobOf turns a view into its wire form.
func jobOf(v jobs.View) api.Job {
	j := api.Job{
		ID:               v.ID.String(),
		State:            string(v.State()),
		Iterations:       v.Iterations,
		Done:             v.Done,
		Owner:            v.Owner,
		Priority:         int(v.Priority),
		Rate:             v.Rate,
		ETASeconds:       v.ETA().Seconds(),
		Error:            v.Err,
		Durability:       v.Durability.String(),
		DurabilityReason: v.Durability.Reason,
		Replicated:       v.Durability.Both,
		Checkpoints:      int(v.Keep),
		ResumedFrom:      v.ResumedFrom,
		Attempts:         v.Attempts,
		Worker:           v.Worker,
		Node:             v.Home,
		Pulled:           v.Pulled,
		Purged:           v.Purged,
		CreatedAt:        v.CreatedAt.UTC(),
	}
	if v.Rank == jobs.Completed && !v.Purged {
		j.Value = v.Result.String()
	}
	if !v.DoneAt.IsZero() {
		at := v.DoneAt.UTC()
		j.FinishedAt = &at
	}
	return j
}

// appendPulled appends one item of POST /pullCompleted.
func appendPulled(b []byte, r *jobs.Result) []byte {
	b = append(b, `{"Work ID":"`...)
	b = appendID(b, r.ID)
	b = append(b, `","Value":"`...)
	b = hex.AppendEncode(b, r.Value[:])
	return append(b, `"}`...)
}

// appendResult appends one api.Result.
func appendResult(b []byte, r *jobs.Result) []byte {
	b = append(b, `{"id":"`...)
	b = appendID(b, r.ID)
	b = append(b, `","value":"`...)
	b = hex.AppendEncode(b, r.Value[:])
	b = append(b, `","iterations":`...)
	b = strconv.AppendUint(b, r.Iterations, 10)
	b = append(b, `,"completed_at":"`...)
	b = r.DoneAt.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, `"}`...)
}
