package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"workmanager/jobs"
	"workmanager/web"
	"workmanager/web/api"
	"workmanager/web/wire"
)

// someReports is a batch of n values, with what else a report may have among
// them if it is mixed.
func someReports(n int, mixed bool) (jobs.Worker, []jobs.Report, []int) {
	who := jobs.Worker{Name: "w1", Instance: "0a1b", Cores: 2, Lanes: 8, Rate: 1.5e6, Kernel: "avx2", Version: "v1.2.3"}
	batch, of := make([]jobs.Report, n), make([]int, n)
	for i := range batch {
		id, v := jobs.ID{1: byte(i >> 8), 15: byte(i)}, jobs.Value{7: byte(i), 63: 0xAB}
		r := jobs.Report{LeaseRef: jobs.LeaseRef{ID: id, Fence: jobs.Fence{Boot: jobs.ID{9: 7}, N: uint64(1000 + i)}}, V1: v, Iterations: 1000, Kind: jobs.ReportValue, Progress: jobs.Progress{Done: 1000, Value: v}, Rate: 123456.789 + float64(i)}
		switch {
		case !mixed:
		case i%4 == 1:
			r.Kind, r.Progress.Done, r.Rungs, r.RungsFrom = jobs.ReportProgress, 500, jobs.Rungs("").Add(v).Add(v), i
		case i%4 == 2:
			r.Kind, r.Err, r.Rate = jobs.ReportFailure, "on fire", 0
		case i%4 == 3:
			r.Kind, r.Progress, r.Ticket = jobs.ReportHandBack, jobs.Progress{}, "AAAAAAAAAAAAAAAAAAAAAA"
		}
		batch[i], of[i] = r, i
	}
	return who, batch, of
}

// TestReports_quick: what our worker sends, now and before, is read without
// encoding/json; what is otherwise is not, and taken or refused as it ever was.
func TestReports_quick(t *testing.T) {
	who, batch, of := someReports(8, true)
	text := string(wire.AppendReportRequest(nil, who, batch, of))
	gotWho, got, ok := web.QuickReports([]byte(text))
	if !ok || gotWho != wire.Worker(who) || !slices.Equal(got, batch) {
		t.Fatalf("%s\nis read as %v, %+v, %+v", text, ok, gotWho, got)
	}
	var req api.ReportRequest
	if err := json.Unmarshal([]byte(text), &req); err != nil {
		t.Fatal(err)
	}
	if older, err := json.Marshal(req); err != nil || string(older) != text {
		t.Errorf("an older worker would have written, %v,\n%s, not\n%s", err, older, text)
	}

	first := batch[0].ID.String()
	for name, row := range map[string]struct{ old, new, refused string }{
		"upper case":               {strings.Repeat("0", 14) + "ab", strings.Repeat("0", 14) + "AB", "quick"},
		"a space":                  {`"reports":[`, `"reports": [`, ""},
		"a space behind":           {`]}`, `]} `, ""},
		"an escape":                {`"on fire"`, `"on\tfire"`, ""},
		"beyond ASCII":             {`"on fire"`, `"on feu é"`, ""},
		"no UTF-8":                 {`"on fire"`, "\"on \xff\"", ""},
		"a control character":      {`"on fire"`, "\"on\nfire\"", "invalid character"},
		"an unknown member":        {`,"done":500`, `,"done":500,"mood":1`, "no such field"},
		"a member twice":           {`,"done":500`, `,"done":5,"done":500`, ""},
		"another order":            {`"iterations":1000,"kind":"progress"`, `"kind":"progress","iterations":1000`, ""},
		"another order of all":     {`{"worker":`, `{"reports":[],"worker":`, ""},
		"capitals in a name":       {`"done":500`, `"DONE":500`, ""},
		"an exponent":              {`"rate":1500000`, `"rate":1.5e6`, ""},
		"a rate below 0":           {`"rate":123456.789`, `"rate":-123456.789`, "not from 0"},
		"a rate over the most":     {`"rate":123456.789`, `"rate":1000000000000001`, "not from 0"},
		"a needless zero":          {`"fence":1000`, `"fence":01000`, "invalid character"},
		"a fence of 20 digits":     {`"fence":1000`, `"fence":18446744073709551615`, ""},
		"a fence over 2^64":        {`"fence":1000`, `"fence":18446744073709551616`, "whole number"},
		"null":                     {`"fence":1000`, `"fence":null`, ""},
		"no iterations":            {`"iterations":1000,"kind":"hand_back"`, `"iterations":0,"kind":"hand_back"`, "2^53"},
		"too many iterations":      {`"iterations":1000,"kind":"hand_back"`, `"iterations":9007199254740993,"kind":"hand_back"`, "2^53"},
		"more done than there is":  {`"done":500`, `"done":1001`, "more than"},
		"a value too early":        {`"done":1000`, `"done":999`, "after which it has its value"},
		"no value":                 {`"done":500,"value":"` + batch[1].V1.String() + `"`, `"done":500`, "hexadecimal"},
		"a value of nothing":       {`"done":0`, `"done":0,"value":"` + batch[1].V1.String() + `"`, ""},
		"a value without digits":   {`"done":0`, `"done":0,"value":""`, ""},
		"a failure without words":  {`"error":"on fire"`, `"error":""`, "why"},
		"a failure of many words":  {`"error":"on fire"`, `"error":"` + strings.Repeat("x", jobs.MaxErrBytes+1) + `"`, "at most"},
		"a long ticket":            {`"ticket":"`, `"ticket":"` + strings.Repeat("A", 43), "at most 64"},
		"a kind that is none":      {`"kind":"progress"`, `"kind":"over"`, "is not one of"},
		"rungs beyond all":         {`"rungs_from":1`, `"rungs_from":1001`, "not from 0"},
		"rungs below 0":            {`"rungs_from":1`, `"rungs_from":-1`, "not from 0"},
		"rungs that are no base64": {`"rungs":"A`, `"rungs":"-`, "base64"},
		"half a rung":              {`"rungs":"AAAA`, `"rungs":"`, "not up to"},
		"an ID without hyphens":    {first, strings.ReplaceAll(first, "-", "_"), "is no job ID"},
		"an ID in braces":          {first, "{" + first + "}", "is no job ID"},
		"a short v1":               {`"v1":"00`, `"v1":"`, "128"},
		"cut off":                  {`]}`, `]`, "no JSON object"},
		"two":                      {`]}`, `]}{}`, "something follows"},
		"no worker":                {text[:strings.Index(text, `"reports"`)], `{`, ""},
		"cores that are no number": {`"cores":2`, `"cores":2.0`, "whole number"},
	} {
		t.Run(name, func(t *testing.T) {
			other := strings.Replace(text, row.old, row.new, 1)
			if other == text {
				t.Fatalf("there is no %s in %s", row.old, text)
			}
			if _, _, ok := web.QuickReports([]byte(other)); ok != (row.refused == "quick") {
				t.Errorf("%s for %s is read at once: %v", row.new, row.old, ok)
			}
			_, _, err := web.SlowReports([]byte(other))
			switch {
			case row.refused == "" || row.refused == "quick":
				if err != nil {
					t.Errorf("%s for %s is refused: %v", row.new, row.old, err)
				}
			case err == nil || !strings.Contains(fmt.Sprintf("%v %+v", err, err), row.refused):
				t.Errorf("%s for %s: error %v, want %q", row.new, row.old, err, row.refused)
			}
		})
	}

	who, batch, of = someReports(api.MaxReports+1, false)
	if _, got, ok := web.QuickReports(wire.AppendReportRequest(nil, who, batch, of[1:])); !ok || len(got) != api.MaxReports {
		t.Errorf("the most reports are read as %d, %v", len(got), ok)
	}
	if _, _, ok := web.QuickReports(wire.AppendReportRequest(nil, who, batch, of)); ok {
		t.Error("one report more than the most is read at once")
	}
	if _, got, ok := web.QuickReports(wire.AppendReportRequest(nil, who, nil, nil)); !ok || got == nil {
		t.Errorf("no reports are read as %v, %v", got, ok)
	}
}

// FuzzReports: what is read at once would have been read the slow way, as the
// same. Text changes at one place, so that most stays as it was.
func FuzzReports(f *testing.F) {
	for n := range 6 {
		text := wire.AppendReportRequest(nil, jobs.Worker{Name: "w", Instance: "i", Cores: 1}, nil, nil)
		if n > 0 {
			who, batch, of := someReports(n, true)
			text = wire.AppendReportRequest(nil, who, batch, of)
		}
		f.Add(text, uint16(0), uint8(0), []byte{})
		for at := 0; at < len(text); at += 37 {
			f.Add(text, uint16(at), uint8(at%3), []byte{byte('0' + at%10)})
		}
		for _, put := range []string{"1", "-", ".5", "e5", `"`, `\`, ",", "}", "]", "null", `,"rate":1`, `,"error":"x"`} {
			f.Add(text, uint16(100*n+len(text)/3), uint8(1), []byte(put))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, at uint16, cut uint8, put []byte) {
		from := min(int(at), len(text))
		text = slices.Concat(text[:from], put, text[min(from+int(cut), len(text)):])
		who, got, ok := web.QuickReports(text)
		if !ok {
			return
		}
		wantWho, want, err := web.SlowReports(text)
		if err != nil || who != wantWho || !slices.Equal(got, want) {
			t.Fatalf("%q\nis read at once as %+v, %+v,\nthe slow way as  %+v, %+v, %v", text, who, got, wantWho, want, err)
		}
		// And what was read is what is written.
		again := wire.AppendReportRequest(nil, jobs.Worker{Name: who.Name, Instance: who.Instance, Cores: who.Cores, Lanes: who.Lanes, Rate: who.Rate, Kernel: who.Kernel, Version: who.Version}, got, every(len(got)))
		if _, same, ok := web.QuickReports(again); !ok || !slices.EqualFunc(same, got, func(a, b jobs.Report) bool {
			return a.Kind == jobs.ReportFailure || noFailure(a) == noFailure(b)
		}) {
			t.Fatalf("%q\nis written as\n%q", text, again)
		}
	})
}

// noFailure is a report without what only a failure has, and rungs from nowhere.
func noFailure(r jobs.Report) jobs.Report {
	if r.Err = ""; r.Rungs == "" {
		r.RungsFrom = 0
	}
	return r
}

func every(n int) []int {
	of := make([]int, n)
	for i := range of {
		of[i] = i
	}
	return of
}

// BenchmarkReportDecode tells the nanoseconds of one report of a batch of 1,000,
// checks included.
func BenchmarkReportDecode(b *testing.B) {
	who, batch, of := someReports(1000, false)
	text := wire.AppendReportRequest(nil, who, batch, of)
	for name, read := range map[string]func() bool{
		"wire": func() bool { _, got, ok := web.QuickReports(bytes.Clone(text)); return ok && len(got) == 1000 },
		"json": func() bool { _, got, err := web.SlowReports(bytes.Clone(text)); return err == nil && len(got) == 1000 },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !read() {
					b.Fatal("not read")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/job")
		})
	}
}

// TestWorkerReport_quick: the node gets the same batch and gives the same answer
// whichever way the body is read, be it refused for its worker or not.
func TestWorkerReport_quick(t *testing.T) {
	s, got := takesReports(t)
	who, batch, of := someReports(300, true)
	text := string(wire.AppendReportRequest(nil, who, batch, of))
	for _, body := range []string{text, strings.Replace(text, `"w1"`, `""`, 1), strings.Replace(text, `"w1"`, `"w/1"`, 1), strings.Replace(text, `"cores":2`, `"cores":5000`, 1)} {
		if _, _, ok := web.QuickReports([]byte(body)); !ok {
			t.Fatalf("%.200s is not read at once", body)
		}
		*got = nil
		quick := s.do("POST", "/worker/report", strings.NewReader(body), "Content-Type: application/json")
		taken := slices.Clone(*got)
		*got = nil
		slow := s.do("POST", "/worker/report", strings.NewReader(" "+body), "Content-Type: application/json")
		if quick.status != slow.status || quick.status == 200 && quick.body != slow.body || !slices.Equal(taken, *got) || body == text && !slices.Equal(taken, batch) {
			t.Errorf("%.200s\nis answered %d %.200s with %d reports taken,\nthe slow way  %d %.200s with %d", body, quick.status, quick.body, len(taken), slow.status, slow.body, len(*got))
		}
	}
}
