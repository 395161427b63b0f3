// Package node puts the parts together: one node of the pair.
//
//	client ─▶ web ─▶ Queue ─▶ store (SQLite, one writer)
//	                  │  ▲
//	          lease.Table │ reports
//	                  ▼  │
//	                jobs/worker (in this process)
//
// The loops, all started and awaited by Run: the store's writer, the queue's
// steps, retention, the worker, the auditor, the HTTP server.
//
// Shutdown goes from the outside in, each step with its own bound, in all
// under five seconds: new jobs are refused and long polls answered; the worker
// hands back what it holds, with its progress; requests under way end; the
// writer commits what still waits; the files are closed.
package node
