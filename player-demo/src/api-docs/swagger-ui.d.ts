/** The part of `swagger-ui-dist` that the page uses; the package has no types. */
type SwaggerUi = (options: {
  readonly spec: object;
  readonly domNode: HTMLElement;
  readonly deepLinking: boolean;
  readonly docExpansion: 'list' | 'full' | 'none';
  readonly defaultModelsExpandDepth: number;
  readonly filter: boolean;
  readonly showCommonExtensions: boolean;
  readonly displayRequestDuration: boolean;
  readonly validatorUrl: null;
  readonly onComplete: () => void;
}) => unknown;

interface Window {
  SwaggerUIBundle?: SwaggerUi;
}
