package jobs

import "context"

// Who submits and who looks travels with the context of a request, set in one
// place, where callers are known. What nobody has named is an operator's, or of
// a node that asks for no tokens: it owns nothing and sees everything.

type (
	ownerKey struct{}
	viewKey  struct{}
)

// WithOwner returns a context whose jobs belong to owner.
func WithOwner(ctx context.Context, owner string) context.Context {
	return context.WithValue(ctx, ownerKey{}, owner)
}

// OwnerOf returns to whom the jobs submitted under ctx belong, "" for nobody.
func OwnerOf(ctx context.Context) string {
	s, _ := ctx.Value(ownerKey{}).(string)
	return s
}

// WithView returns a context that sees the jobs of one owner and no others.
func WithView(ctx context.Context, owner string) context.Context {
	return context.WithValue(ctx, viewKey{}, owner)
}

// ViewOf returns whose jobs alone ctx sees, "" if it sees everybody's.
func ViewOf(ctx context.Context) string {
	s, _ := ctx.Value(viewKey{}).(string)
	return s
}

// Sees reports whether ctx may be told that there is such a job.
func Sees(ctx context.Context, j Job) bool {
	v := ViewOf(ctx)
	return v == "" || v == j.Owner
}
