package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/go-playground/validator/v10"

	"workmanager/jobs"
)

// shapes is the one validator. It is safe for concurrent use.
var shapes = newShapes()

func newShapes() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			return ""
		}
		return name
	})
	return v
}

// check returns an *Error that lists every field of the struct v whose
// validate tag does not hold. Its fields stood in what in names: "query" or
// "body".
func check(in string, v any) error {
	err := shapes.Struct(v)
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[validator.ValidationErrors](err)
	if !ok {
		return fmt.Errorf("check the shape of a %T: %w", v, err)
	}
	var p problems
	for _, fe := range wrong {
		kind, msg := message(fe)
		p.list = append(p.list, jobs.Problem{Loc: []string{in, fe.Field()}, Msg: msg, Type: kind})
	}
	return p.err()
}

// message says what is wrong with a field, for each rule the tags use and each
// kind it stands at. The value is shown, but for a string, only its length
// where the length is the trouble.
func message(fe validator.FieldError) (kind, msg string) {
	value := fe.Value()
	switch fe.Tag() {
	case "required":
		return "value_error.missing", "field required"
	case "oneof":
		return "value_error.const", fmt.Sprintf("%q is not one of %s", clip(fmt.Sprint(value)), strings.Join(strings.Fields(fe.Param()), ", "))
	case "min", "gte", "max", "lte":
		least := fe.Tag() == "min" || fe.Tag() == "gte"
		switch fe.Kind() {
		case reflect.String:
			n := len([]rune(fmt.Sprint(value)))
			if least {
				return "value_error.length", fmt.Sprintf("has %d characters, at least %s are needed", n, fe.Param())
			}
			return "value_error.length", fmt.Sprintf("has %d characters, at most %s are allowed", n, fe.Param())
		case reflect.Slice, reflect.Array, reflect.Map:
			n := reflect.ValueOf(value).Len()
			if least {
				return "value_error.length", fmt.Sprintf("has %d items, at least %s are needed", n, fe.Param())
			}
			return "value_error.length", fmt.Sprintf("has %d items, at most %s are allowed", n, fe.Param())
		default: // signed, unsigned and floating-point numbers
			if least {
				return "value_error.number", fmt.Sprintf("%v is less than %s", value, fe.Param())
			}
			return "value_error.number", fmt.Sprintf("%v is more than %s", value, fe.Param())
		}
	}
	return "value_error." + fe.Tag(), fmt.Sprintf("does not keep the rule %s=%s", fe.Tag(), fe.Param())
}

// decodeField reads one JSON value into v and says what is wrong in words that
// name no Go type.
func decodeField(in, name string, raw []byte, v any) error {
	err := json.Unmarshal(raw, v)
	if err == nil {
		return nil
	}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind, want := wanted(te.Type)
		got := te.Value
		if lit, ok := strings.CutPrefix(got, "number "); ok {
			got = clip(lit)
		} else {
			got = "a JSON " + got
		}
		return jobs.Invalid(in, name, kind, "%s is not %s", got, want)
	}
	return jobs.Invalid(in, name, "value_error.json", "is not JSON")
}

// wanted names what a Go type is to somebody who writes JSON.
func wanted(t reflect.Type) (kind, want string) {
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "type_error.integer", "a whole number of the range"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "type_error.integer", fmt.Sprintf("a whole number from 1 to %d (2^53)", uint64(jobs.MaxIterations))
	case reflect.Float32, reflect.Float64:
		return "type_error.float", "a number"
	case reflect.String:
		return "type_error.str", "a string"
	case reflect.Bool:
		return "type_error.bool", "true or false"
	case reflect.Slice, reflect.Array:
		return "type_error.list", "a list"
	}
	return "type_error.dict", "an object"
}
