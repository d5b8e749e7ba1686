//! The chat template that a model's file carries.

use anyhow::{Context, Result, anyhow};
use minijinja::{Environment, Error, ErrorKind, context};

use super::Vocabulary;
use crate::gguf::Metadata;

/// The prompt that asks the model for its answer to `question`.
pub fn prompt(metadata: &Metadata, vocabulary: &Vocabulary, question: &str) -> Result<String> {
    let template = metadata
        .str("tokenizer.chat_template")?
        .context("the model has no chat template, use --raw")?;
    render(&template, vocabulary.bos_name(), vocabulary.eos_name(), question)
}

fn render(template: &str, bos: &str, eos: &str, question: &str) -> Result<String> {
    let mut env = Environment::new();
    // As the templates' authors tried them: in Python, with these two settings.
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |text: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, text))
    });
    let render = || {
        env.template_from_str(template)?.render(context! {
            messages => [context! { role => "user", content => question }],
            add_generation_prompt => true,
            bos_token => bos,
            eos_token => eos,
        })
    };
    // The error's long form has many lines; its head names kind and line.
    render().map_err(|error| anyhow!("the model's chat template: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatml_template_renders() {
        let template = "{% for message in messages %}{% if loop.first and messages[0]['role'] != \
            'system' %}{{ '<|im_start|>system\\nBe kind<|im_end|>\\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + \
            '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
            {% endif %}";
        let want = "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n\
                    <|im_start|>assistant\n";
        assert_eq!(render(template, "", "", "Hi?").unwrap(), want);
    }

    #[test]
    fn python_methods_and_the_ends_of_text_are_there() {
        let template = "{{ bos_token }}[INST] {{ messages[0]['content'].strip() }} [/INST]\
                        {% if messages|length > 1 %}{{ eos_token }}{% endif %}";
        assert_eq!(render(template, "<s>", "</s>", " x ").unwrap(), "<s>[INST] x [/INST]");
    }

    #[test]
    fn a_template_s_own_objection_and_a_bad_template_are_errors() {
        let text = render("{{ raise_exception('no users') }}", "", "", "x").unwrap_err();
        assert!(text.to_string().contains("no users"), "{text}");
        let text = render("{% for %}", "", "", "x").unwrap_err().to_string();
        assert!(text.contains("chat template") && !text.contains('\n'), "{text}");
    }
}
