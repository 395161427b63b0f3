package api

// PausedForNow is why nothing is launched, for those who are not told what the
// cloud has said.
const PausedForNow = "it cannot for now, and tries again by itself"

// Totals returns the fleet for one who is no operator: how many instances there
// are, what they cost together and what holds it in words, and none of them, no
// decision, and nothing that the cloud has said.
func (f FleetStatus) Totals() FleetStatus {
	f.Instances, f.Decisions = []Instance{}, nil
	if f.Paused != "" && !f.PauseAsked {
		f.Paused = PausedForNow
	}
	return f
}
